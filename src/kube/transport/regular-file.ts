import { constants, type FileHandle, open, readlink, realpath, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { bounded } from '../../async/limits.ts';

/** Bytes: the size limit of a ConfigMap and of a Secret. */
export const LARGEST_FILE = 1024 * 1024;

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
export const readRegularFile = (path: string, most: number): Promise<string> => readOpened(path, most, async () => {});

/** The same for a file that is below one of the directories, wherever the symlinks of its path lead. */
export const readFileBelow = (path: string, most: number, directories: readonly string[]): Promise<string> =>
  readOpened(path, most, async (file) => {
    // Where the kernel found the opened file; without /proc, where its path leads.
    const real = await readlink(`/proc/self/fd/${file.fd}`).catch(() => realpath(path));
    // One that does not exist has no files.
    const places = await Promise.all(directories.map((directory) => realpath(directory).catch(() => directory)));
    if (isBelow(real, places)) return;
    throw new FileError(`is a symlink to ${real}, which is not below ${directories.join(' or ')}`);
  });

/** Whether a path, as it is written, is below one of the directories. */
export const isBelow = (path: string, directories: readonly string[]): boolean =>
  directories.some((directory) => resolve(path).startsWith(`${resolve(directory)}/`));

/** Whether every user of the machine may change the file. False where it cannot be known. */
export const anybodyMayWrite = async (path: string): Promise<boolean> =>
  stat(path).then(
    ({ mode }) => (mode & constants.S_IWOTH) !== 0,
    () => false,
  );

async function readOpened(path: string, most: number, check: (file: FileHandle) => Promise<void>): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    if (!(await file.stat()).isFile()) throw new FileError('is not a regular file');
    await check(file);
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
