import type { SharedHandle } from './sharing.ts';
import { Trigger } from './trigger.ts';

/** Opens the stream that is read once for all. `report` reaches each current follower. */
export type LatestSource<T> = (signal: AbortSignal, report: (error: Error) => void) => AsyncIterable<T>;

/**
 * One reader of a stream of states, for any number of followers: opened when made, closed when disposed of. Each
 * follower receives the newest value first and then newer ones, and skips those that it was too slow for. The stream
 * ends or fails for each follower as it ends or fails itself.
 */
export class LatestValue<T> implements Disposable {
  readonly #stop = new AbortController();
  readonly #followers = new Set<Follower>();
  #latest: { readonly value: T } | undefined;
  #end: { readonly error?: unknown } | undefined;

  constructor(open: LatestSource<T>) {
    void this.#read(open);
  }

  /** Ends with the signal. `over` is called when the stream has ended, although there may be a value left to yield. */
  async *follow(report: (error: Error) => void, over: () => void, signal: AbortSignal): AsyncGenerator<T, undefined> {
    const follower = { changed: new Trigger(), report, over };
    this.#followers.add(follower);
    if (this.#end) over();
    try {
      for (let seen: { readonly value: T } | undefined; !signal.aborted; ) {
        if (this.#latest && this.#latest !== seen) {
          seen = this.#latest;
          yield seen.value;
        } else if (this.#end) {
          if ('error' in this.#end) throw this.#end.error;
          return;
        } else await follower.changed.wait(signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#followers.delete(follower);
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort(new Error('nobody follows it any more'));
  }

  async #read(open: LatestSource<T>): Promise<void> {
    const { signal } = this.#stop;
    const report = (error: Error) => {
      if (!signal.aborted) for (const follower of this.#followers) follower.report(error);
    };
    const changed = () => {
      for (const follower of this.#followers) follower.changed.fire();
    };
    try {
      for await (const value of open(signal, report)) {
        this.#latest = { value };
        changed();
      }
      this.#end = {};
    } catch (error) {
      this.#end = { error };
    }
    for (const follower of this.#followers) follower.over();
    changed();
  }
}

interface Follower {
  readonly changed: Trigger;
  readonly over: () => void;
  readonly report: (error: Error) => void;
}

/**
 * Follows the value that `join` returns, from the first `next` until `return`, until the signal is aborted, which ends
 * it without an error, or until the followed stream ends. Then it releases the handle.
 */
export async function* following<T>(
  join: () => SharedHandle<LatestValue<T>>,
  report: (error: Error) => void,
  signal: AbortSignal,
): AsyncGenerator<T, undefined> {
  if (signal.aborted) return;
  using held = join();
  // Also while nobody asks for the next value: a later follower opens the stream again.
  const letGo = () => held[Symbol.dispose]();
  signal.addEventListener('abort', letGo, { once: true });
  try {
    yield* held.value.follow(report, letGo, signal);
  } finally {
    signal.removeEventListener('abort', letGo);
  }
}
