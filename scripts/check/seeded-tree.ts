import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const parent = mkdtempSync(join(tmpdir(), 'meshcert-check-'));
process.once('exit', () => rmSync(parent, { recursive: true, force: true }));

/** Writes the files below a new temporary directory, which lasts as long as this process, and returns its path. */
export function seededTree(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(parent, 'tree-'));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}
