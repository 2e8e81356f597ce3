export interface Entry {
  /** Relative, with forward slashes and no slash at either end. */
  readonly path: string;
  /** Permission bits, such as 0o755. */
  readonly mode: number;
  /** Of a file; a directory has none. */
  readonly content?: Buffer;
}

const BLOCK = 512;

/** A ustar archive that depends only on its entries: owner root, the time 1970-01-01, the given order. */
export function tar(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = [];
  for (const { path, mode, content } of entries) {
    parts.push(header(content ? path : `${path}/`, mode, content));
    if (content) parts.push(content, Buffer.alloc(-content.length & (BLOCK - 1)));
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

function header(path: string, mode: number, content: Buffer | undefined): Buffer {
  if (Buffer.byteLength(path) > 100) throw new RangeError(`${path}: a path in an image has at most 100 bytes`);
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`;
  block.write(path, 0);
  block.write(octal(mode, 7), 100);
  block.write(octal(0, 7), 108);
  block.write(octal(0, 7), 116);
  block.write(octal(content?.length ?? 0, 11), 124);
  block.write(octal(0, 11), 136);
  // The checksum counts its own field as spaces.
  block.write(' '.repeat(8), 148);
  block.write(content ? '0' : '5', 156);
  block.write('ustar\x0000', 257);
  block.write('root', 265);
  block.write('root', 297);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)} `, 148);
  return block;
}

/** Adds the directories that the paths of these files need, and sorts everything by path. */
export function withDirectories(files: readonly Entry[]): Entry[] {
  const all = new Map<string, Entry>();
  for (const file of files) {
    const names = file.path.split('/');
    for (let depth = 1; depth < names.length; depth++) {
      const path = names.slice(0, depth).join('/');
      all.set(path, { path, mode: 0o755 });
    }
  }
  for (const file of files) all.set(file.path, file);
  return [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}
