import { createHash, randomUUID } from 'node:crypto';
import { access, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { bundle } from './build.ts';
import { filesBelow, ROOT } from './tree.ts';

/** Set by the test runner, so that all tests of a run use one bundle whatever is edited meanwhile. */
export const BUNDLE_VARIABLE = 'MESHCERT_BUNDLE';

const DAY_MS = 86_400_000;
const cache = join(process.env.MESHCERT_CACHE ?? join(homedir(), '.cache', 'meshcert'), 'bundles');

/**
 * The path of the bundle of this tree, which is what users run. It is built once for its inputs and kept outside the
 * tree, with no packages near it.
 */
export async function builtBundle(): Promise<string> {
  const given = process.env[BUNDLE_VARIABLE];
  if (given !== undefined) return given;
  const directory = await builtOnce('', inputsOfBundle(), async (unfinished) => {
    await bundle(unfinished);
    // Node.js detects by itself that it is a module; tsx, in tests that run without the test runner, does not.
    await writeFile(join(unfinished, 'package.json'), '{"type": "module"}\n');
  });
  return join(directory, 'meshcert.js');
}

/** Files of this tree, from its root. */
export const inputsOfBundle = (): string[] => [
  ...filesBelow(ROOT, 'src', 'adapters', 'sandbox').filter((file) => !file.endsWith('.test.ts')),
  ...['scripts/build.ts', 'package.json', 'package-lock.json'],
];

/** A directory that is filled once for the content of these files. */
export async function builtOnce(
  prefix: string,
  inputs: readonly string[],
  fill: (directory: string) => Promise<void>,
): Promise<string> {
  const directory = join(cache, `${prefix}${await keyOf(inputs)}`);
  if (await exists(directory)) return directory;
  const unfinished = join(cache, `.${randomUUID()}`);
  await mkdir(unfinished, { recursive: true });
  await fill(unfinished);
  // If another process built it meanwhile, the result is the same.
  await rename(unfinished, directory).catch(() => rm(unfinished, { recursive: true }));
  await removeOld();
  return directory;
}

async function keyOf(inputs: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of inputs.toSorted()) hash.update(`${file}\0`).update(await readFile(join(ROOT, file)));
  return hash.digest('hex').slice(0, 16);
}

async function removeOld(): Promise<void> {
  for (const name of await readdir(cache)) {
    const directory = join(cache, name);
    const about = await stat(directory).catch(() => undefined);
    if (about && about.mtimeMs < Date.now() - DAY_MS) await rm(directory, { recursive: true, force: true });
  }
}

const exists = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  );
