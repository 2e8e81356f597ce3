import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { kubeConfigOnly } from './build.ts';
import { filesBelow, ROOT } from './tree.ts';

export interface TestBundle extends AsyncDisposable {
  /** One JavaScript file for each group; sorted, they are in the order in which the groups were given. */
  readonly files: readonly string[];
  /** The directory of the compiled parts of the bench. */
  readonly parts: string;
}

const PARTS = 'test/bench/parts';

/**
 * Compiles groups of test files and their shared modules once for the run: with tsx, each process would load hundreds
 * of modules by itself, which costs three times as much. Packages are loaded unchanged, except for the parts that the
 * shipped bundle omits.
 */
export async function bundleTests(groups: readonly (readonly string[])[]): Promise<TestBundle> {
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-tests-'));
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    // Packages are looked up from the location of the importing file.
    await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
    const out = join(directory, 'out');
    await mkdir(out);
    // `node --test` runs files in the order of their paths, not in the given order.
    const entries = await Promise.all(
      groups.map(async (files, index) => {
        const [first = ''] = files;
        const number = String(index).padStart(3, '0');
        const out = `${number}/${first.replace(/\.ts$/, '')}`;
        if (files.length === 1) return { in: first, out };
        const file = join(directory, `${number}.ts`);
        await writeFile(file, files.map((one) => `import ${JSON.stringify(join(ROOT, one))};\n`).join(''));
        return { in: file, out };
      }),
    );
    const parts = filesBelow(ROOT, PARTS).filter((file) => !file.endsWith('.test.ts'));
    await build({
      absWorkingDir: ROOT,
      entryPoints: [...entries, ...parts.map((file) => ({ in: file, out: file.replace(/\.ts$/, '') }))],
      outdir: out,
      bundle: true,
      splitting: true,
      packages: 'external',
      platform: 'node',
      target: 'node20.18',
      format: 'esm',
      // Nothing above the directory marks these as modules, and early versions of Node 20 do not detect it.
      outExtension: { '.js': '.mjs' },
      sourcemap: 'linked',
      sourcesContent: false,
      define: { 'import.meta.url': '__sourceUrl', 'import.meta.dirname': '__sourceDirectory' },
      plugins: [sourceLocations, kubeConfigOnly],
      logLevel: 'warning',
    });
    const files = entries.map((entry) => join(out, `${entry.out}.mjs`));
    return { files, parts: join(out, PARTS), [Symbol.asyncDispose]: remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** A module that reads its own location gets that of its source: the files that it reads and starts are beside it. */
const sourceLocations: Plugin = {
  name: 'source-locations',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const text = await readFile(path, 'utf8');
      if (!text.includes('import.meta')) return;
      const url = JSON.stringify(pathToFileURL(path).href);
      const directory = JSON.stringify(dirname(path));
      // In the first line, so that the others keep their numbers.
      const contents = `const __sourceUrl = ${url}, __sourceDirectory = ${directory}; ${text}`;
      return { loader: 'ts', contents };
    });
  },
};
