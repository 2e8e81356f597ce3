import { mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { kubeConfigOnly } from './build.ts';
import { ROOT } from './tree.ts';

export interface TestBundle extends AsyncDisposable {
  /** One JavaScript file for each test file; sorted, they are in the order in which the test files were given. */
  readonly files: readonly string[];
}

/**
 * Compiles test files and their shared modules once for the run: with tsx, each process would load hundreds of modules
 * by itself, which costs three times as much. Packages are loaded unchanged, except for the parts that the shipped
 * bundle omits.
 */
export async function bundleTests(testFiles: readonly string[]): Promise<TestBundle> {
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-tests-'));
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    // Packages are looked up from the location of the importing file.
    await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
    const out = join(directory, 'out');
    await mkdir(out);
    // `node --test` runs files in the order of their paths, not in the given order.
    const entries = testFiles.map((file, index) => ({
      in: file,
      out: `${String(index).padStart(3, '0')}/${file.replace(/\.ts$/, '')}`,
    }));
    await build({
      absWorkingDir: ROOT,
      entryPoints: entries,
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
    return { files: entries.map((entry) => join(out, `${entry.out}.mjs`)), [Symbol.asyncDispose]: remove };
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
