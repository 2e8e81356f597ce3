import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundle } from '../build.ts';
import { buildPackage } from '../build-package.ts';
import { capture } from '../run.ts';
import { ROOT } from '../tree.ts';

/** What only a checkout uses. */
const OF_CHECKOUT = new Set(['devDependencies', 'scripts']);

/** The tarball that is published on npm. */
export async function packPackage(): Promise<Buffer> {
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-package-'));
  try {
    const dist = join(directory, 'dist');
    await mkdir(dist);
    await bundle(dist);
    await buildPackage(dist);
    for (const file of ['README.md', 'LICENSE']) await cp(join(ROOT, file), join(directory, file));
    const manifest = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as object;
    const published = Object.fromEntries(Object.entries(manifest).filter(([name]) => !OF_CHECKOUT.has(name)));
    await writeFile(join(directory, 'package.json'), `${JSON.stringify(published, null, 2)}\n`);
    const { code, output } = await capture('npm', ['pack', '--json', '--ignore-scripts'], directory);
    if (code !== 0) throw new Error(`npm pack ended with ${code}:\n${output}`);
    return await readFile(join(directory, `${manifestName(published)}.tgz`));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const manifestName = ({ name, version }: { name?: unknown; version?: unknown }): string => `${name}-${version}`;
