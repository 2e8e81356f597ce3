import { createHash } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { dirname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../async/clock.ts';
import { Trigger } from '../async/trigger.ts';
import { type Allowed, ANY } from '../config/allow.ts';
import {
  anybodyMayWrite,
  FileError,
  LARGEST_FILE,
  readFileBelow,
  readRegularFile,
} from '../kube/transport/regular-file.ts';

/** A change that the directory watch missed (network file systems) is found within this time. */
const POLL_MS = 10_000;
/** Programs write a certificate, its key and its roots within some milliseconds. */
const MOST_READINGS = 10;

export interface FileOptions {
  readonly clock: Clock;
  /** Directories that the files must be in, wherever their symlinks lead. `ANY` for files that the operator named. */
  readonly below: Allowed;
  /** Bytes; default 1 MiB. */
  readonly most?: number;
  /** Called for a file that exists and cannot be used. Absence is a state, not an error. */
  readonly failed?: (path: string, error: FileError) => void;
  /** Called when no file is unusable any more. */
  readonly recovered?: () => void;
  /** Called once for a file that every user of the machine may change. */
  readonly unguarded?: (path: string) => void;
}

/** In the order of the paths; `undefined` for a file that cannot be read. */
export type FileTexts = readonly (string | undefined)[];

/** A file's text now and at each change of its bytes; `undefined` while it cannot be read. */
export async function* fileContents(
  path: string,
  options: FileOptions,
  signal: AbortSignal,
): AsyncGenerator<string | undefined> {
  for await (const [text] of fileTexts([path], options, signal)) yield text;
}

/**
 * The texts of several files as they stood together at one moment, now and at each change of their bytes; `undefined`
 * for one that cannot be read, for whatever reason: a mount that fails for a while must not end who follows it. The
 * directories are watched, not the files: a mounted volume swaps a symlink, after which a watch of a file is deaf.
 */
export async function* fileTexts(
  paths: readonly string[],
  options: FileOptions,
  signal: AbortSignal,
): AsyncGenerator<FileTexts> {
  const changed = new Trigger();
  const directories = [...new Set(paths.map((path) => dirname(path)))];
  const watchers = new Map<string, FSWatcher>();
  let last: readonly string[] | undefined;
  let wasUnusable = false;
  const unguarded = new Set<string>();
  try {
    while (!signal.aborted) {
      for (const directory of directories) {
        const watcher = watchers.get(directory) ?? watchDirectory(directory, changed);
        if (watcher) watchers.set(directory, watcher);
      }
      const found = await readTogether(paths, options.most ?? LARGEST_FILE, options.below);
      const states = found?.map(stateOf);
      if (found && states && !isDeepStrictEqual(states, last)) {
        for (const [at, reading] of found.entries()) {
          const isNews = typeof reading !== 'string' && !reading.isAbsent && states[at] !== last?.[at];
          if (isNews) options.failed?.(paths[at] ?? '', reading);
        }
        const isUnusable = found.some((reading) => typeof reading !== 'string' && !reading.isAbsent);
        if (wasUnusable && !isUnusable) options.recovered?.();
        for (const path of paths) {
          if (unguarded.has(path) || !(await anybodyMayWrite(path))) continue;
          unguarded.add(path);
          options.unguarded?.(path);
        }
        wasUnusable = isUnusable;
        last = states;
        yield found.map((reading) => (typeof reading === 'string' ? reading : undefined));
      }
      await changed.waitFor(POLL_MS, options.clock, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    for (const watcher of watchers.values()) watcher.close();
  }
}

type FileReading = string | FileError;

/**
 * Two readings in a row that are alike: all files stood so at the moment between them. Undefined when they change
 * faster than they can be read; the change that disturbed the reading is a reason to try again.
 */
async function readTogether(
  paths: readonly string[],
  most: number,
  below: Allowed,
): Promise<readonly FileReading[] | undefined> {
  let before: readonly FileReading[] | undefined;
  for (let reading = 0; reading < MOST_READINGS; reading++) {
    const after: readonly FileReading[] = await Promise.all(paths.map((path) => read(path, most, below)));
    if (before && isDeepStrictEqual(before.map(stateOf), after.map(stateOf))) return after;
    before = after;
  }
  return undefined;
}

/** Tells two readings apart without holding on to a text, which may be a key. */
const stateOf = (reading: FileReading): string =>
  typeof reading === 'string' ? createHash('sha256').update(reading).digest('hex') : reading.message;

async function read(path: string, most: number, below: Allowed): Promise<FileReading> {
  try {
    return await readAllowed(path, most, below);
  } catch (error) {
    return error instanceof FileError ? error : new FileError('cannot be read', { cause: error });
  }
}

/** The text of a regular file of at most `most` bytes that may be read. Throws FileError. */
export const readAllowed = (path: string, most: number, below: Allowed): Promise<string> =>
  below === ANY ? readRegularFile(path, most) : readFileBelow(path, most, below);

function watchDirectory(path: string, changed: Trigger): FSWatcher | undefined {
  try {
    const watcher = watch(path, { persistent: false }, () => changed.fire());
    watcher.on('error', () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}
