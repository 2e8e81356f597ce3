import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { trackedBelow, untracked } from '../tree.ts';

const directory = mkdtempSync(join(tmpdir(), 'meshcert-check-'));
process.once('exit', () => rmSync(directory, { recursive: true, force: true }));

/** A configuration of tsc that names each tracked file, and takes everything else from tsconfig.json; its path. */
export function tscConfig(root: string): string {
  const base = join(root, 'tsconfig.json');
  const { include } = JSON.parse(readFileSync(base, 'utf8')) as { include: readonly string[] };
  const files = trackedBelow(root, ...include)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => join(root, file));
  const compilerOptions = { typeRoots: [join(root, 'node_modules/@types')] };
  return written('tsconfig.json', { extends: base, compilerOptions, files, include: [] });
}

interface KnipConfig {
  readonly entry: readonly string[];
  readonly project: readonly string[];
}

/** The configuration of knip in this file, without the files that are not tracked; its path. */
export function knipConfig(root: string, file: string): string {
  const config = JSON.parse(readFileSync(join(root, file), 'utf8')) as KnipConfig;
  const others = untracked(root).map((path) => `!${path}`);
  return written(file, {
    ...config,
    entry: [...config.entry, ...others],
    project: [...config.project, ...others],
  });
}

function written(name: string, content: object): string {
  const path = join(directory, name);
  writeFileSync(path, JSON.stringify(content));
  return path;
}
