import { constants, type FileHandle, open } from 'node:fs/promises';
import { bounded } from '../../async/bounded.ts';

/** A file that cannot be used; the message follows its path: `does not exist`. */
export class FileError extends Error {
  override readonly name = 'FileError';
  readonly isAbsent: boolean;

  constructor(message: string, options: { isAbsent?: boolean; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.isAbsent = options.isAbsent ?? false;
  }
}

const PIECE = 65_536;

/**
 * The text of a regular file of at most `most` bytes; throws a FileError for anything else. A pipe without a writer
 * does not block, and a device that never ends is not read.
 */
export async function readRegularFile(path: string, most: number): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    if (!(await file.stat()).isFile()) throw new FileError('is not a regular file');
    const bytes = await bounded(pieces(file), most);
    if (!bytes) throw new FileError(`is larger than ${most} bytes`);
    return bytes.toString('utf8');
  } catch (cause) {
    if (cause instanceof FileError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new FileError('does not exist', { isAbsent: true, cause });
    // Node.js has longer codes for names that are not valid paths.
    const reason = code !== undefined && /^E[A-Z0-9]+$/.test(code) ? code : 'its name is not a path';
    throw new FileError(`cannot be read (${reason})`, { cause });
  }
}

async function* pieces(file: FileHandle): AsyncGenerator<Buffer> {
  for (;;) {
    const { bytesRead, buffer } = await file.read({ buffer: Buffer.allocUnsafe(PIECE) });
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}
