import { readFile } from 'node:fs/promises';

/**
 * A document with the part between `<!-- generated: NAME -->` and `<!-- end -->` replaced; the rest is written by
 * hand. Throws when the document has no such part.
 */
export async function withSection(file: string, name: string, body: string): Promise<string> {
  const text = await readFile(file, 'utf8');
  const start = `<!-- generated: ${name} -->\n`;
  const from = text.indexOf(start);
  const to = text.indexOf('<!-- end -->', from);
  if (from < 0 || to < 0) throw new Error(`${file} has no section "${name}"`);
  return `${text.slice(0, from + start.length)}${body}${text.slice(to)}`;
}
