import { createHash } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../../async/clock.ts';
import { Trigger } from '../../async/trigger.ts';
import { FileError, readRegularFile } from '../../kube/transport/regular-file.ts';

/** A change that the directory watch missed (network file systems) is found within this time. */
const POLL_MS = 10_000;
/** What a ConfigMap or a Secret may hold. */
const LARGEST_FILE = 1024 * 1024;

export interface FileOptions {
  readonly clock: Clock;
  /** Bytes; default 1 MiB. */
  readonly most?: number;
  /** Called for what is there and cannot be used. Absence is a state, not an error. */
  readonly failed?: (error: FileError) => void;
}

/**
 * A file's text now and at each change of its bytes; `undefined` while it cannot be read, for whatever reason: a mount
 * that fails for a while must not end who follows it. The directory is watched, not the file: a mounted volume swaps
 * a symlink, after which a watch of the file is deaf.
 */
export async function* fileContents(
  path: string,
  options: FileOptions,
  signal: AbortSignal,
): AsyncGenerator<string | undefined> {
  const changed = new Trigger();
  let watcher: FSWatcher | undefined;
  let last: string | undefined;
  try {
    for (let first = true; !signal.aborted; first = false) {
      watcher ??= watchDirectory(dirname(path), changed);
      const found = await read(path, options.most ?? LARGEST_FILE);
      const isRead = typeof found === 'string';
      const state = isRead ? createHash('sha256').update(found).digest('hex') : found.message;
      if (first || state !== last) {
        last = state;
        if (!isRead && !found.isAbsent) options.failed?.(found);
        yield isRead ? found : undefined;
      }
      await changed.waitFor(POLL_MS, options.clock, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    watcher?.close();
  }
}

async function read(path: string, most: number): Promise<string | FileError> {
  try {
    return await readRegularFile(path, most);
  } catch (error) {
    return error instanceof FileError ? error : new FileError('cannot be read', { cause: error });
  }
}

function watchDirectory(path: string, changed: Trigger): FSWatcher | undefined {
  try {
    const watcher = watch(path, { persistent: false }, () => changed.fire());
    watcher.on('error', () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}
