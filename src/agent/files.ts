import { createHash } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from '../mesh/clock.ts';
import { Trigger } from '../mesh/trigger.ts';

/** A change that the directory watch missed (network file systems) is found within this time. */
const POLL_MS = 10_000;

/**
 * A file's text now and at each change of its bytes; `undefined` while it cannot be read, for whatever reason: a mount
 * that fails for a while must not end who follows it. The directory is watched,
 * not the file: a mounted volume swaps a symlink, after which a watch of the file is deaf.
 */
export async function* fileContents(
  path: string,
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<string | undefined> {
  const changed = new Trigger();
  let watcher: FSWatcher | undefined;
  let last: string | undefined;
  try {
    for (let first = true; !signal.aborted; first = false) {
      watcher ??= watchDirectory(dirname(path), changed);
      const text = await read(path);
      const digest = text === undefined ? 'unreadable' : createHash('sha256').update(text).digest('hex');
      if (first || digest !== last) {
        last = digest;
        yield text;
      }
      await changed.waitFor(POLL_MS, clock, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    watcher?.close();
  }
}

async function read(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
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
