import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { KeyPair } from '../servers/authority.ts';

/** Replaces each file by a rename, so that no reader sees a part of one. */
export async function replaceFiles(directory: string, content: Readonly<Record<string, string>>): Promise<void> {
  for (const [file, text] of Object.entries(content)) {
    await writeFile(join(directory, `.${file}`), text);
    await rename(join(directory, `.${file}`), join(directory, file));
  }
}

/** A pair and its roots in the layout `tls` of the file mesh. */
export const writePair = (directory: string, { chain, key }: KeyPair, roots: string): Promise<void> =>
  replaceFiles(directory, { 'tls.crt': chain, 'tls.key': key, 'ca.crt': roots });
