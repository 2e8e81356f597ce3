import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { thirdPartyLicenses } from './licenses.ts';
import { capture } from './run.ts';
import { ROOT } from './tree.ts';

/** What authors of adapters import: `exports` of package.json. One build, so that both use the same classes. */
const ENTRIES = { adapter: 'src/mesh/outside/api.ts', 'adapter-contract': 'test/contract/exported.ts' };

/** The chunk that both share; its name changes with its content. */
const CHUNK = /^adapter-[A-Z0-9]{8}\.js$/;

/**
 * Writes the modules of the package's exports and, below `types`, their declarations. Neither needs another package.
 * The licenses of what the bundles contain are beside them.
 */
export async function buildPackage(outdir = join(ROOT, 'dist')): Promise<void> {
  const before = await readdir(outdir).catch(() => []);
  for (const name of before.filter((one) => CHUNK.test(one))) await rm(join(outdir, name));
  await build({
    absWorkingDir: ROOT,
    entryPoints: ENTRIES,
    outdir,
    bundle: true,
    splitting: true,
    chunkNames: 'adapter-[hash]',
    platform: 'node',
    target: 'node20.18',
    format: 'esm',
    legalComments: 'none',
    logLevel: 'warning',
  });
  await writeFile(join(outdir, 'third-party-licenses.txt'), await thirdPartyLicenses({ demo: true }));
  const types = join(outdir, 'types');
  await rm(types, { recursive: true, force: true });
  const tsc = join(ROOT, 'node_modules/.bin/tsc');
  const { code, output } = await capture(tsc, ['-p', 'tsconfig.package.json', '--outDir', types]);
  if (code !== 0) throw new Error(`the declarations of the package cannot be written:\n${output}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildPackage();
