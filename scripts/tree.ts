import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root, with no slash at its end. */
export const ROOT = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');

const NOT_OURS = new Set(['node_modules', 'dist', 'coverage', '.git']);

/** Every file of ours below a directory, as sorted paths relative to `root` with forward slashes. */
export function filesBelow(root: string, ...directories: readonly string[]): string[] {
  const found: string[] = [];
  const walk = (directory: string) => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (NOT_OURS.has(entry.name)) continue;
      const path = join(directory, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile()) found.push(relative(root, path).replaceAll('\\', '/'));
    }
  };
  for (const directory of directories.length === 0 ? ['.'] : directories) walk(join(root, directory));
  return found.sort();
}

/**
 * The same without files that git does not track, such as notes and trials. Where git knows nothing of the tree, as in
 * an archive, every file counts.
 */
export function trackedBelow(root: string, ...directories: readonly string[]): string[] {
  const tracked = listed(root, ['--cached'], directories);
  return tracked?.filter((file) => existsSync(join(root, file))) ?? filesBelow(root, ...directories);
}

/** The files of ours that git neither tracks nor ignores. */
export const untracked = (root: string): string[] => listed(root, ['--others', '--exclude-standard'], []) ?? [];

function listed(root: string, options: readonly string[], directories: readonly string[]): string[] | undefined {
  if (!existsSync(join(root, '.git'))) return undefined;
  const args = ['-C', root, 'ls-files', '-z', ...options, '--', ...directories];
  const { status, stdout } = spawnSync('git', args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
  return status === 0 ? [...new Set(stdout.split('\0').filter((file) => file !== ''))].sort() : undefined;
}
