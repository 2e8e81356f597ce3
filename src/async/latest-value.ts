import { type LinkedSignal, linkedTo } from './linked-signal.ts';
import type { SharedHandle } from './sharing.ts';
import { Changes } from './trigger.ts';

/** Why the newest value may be out of date; undefined: it is up to date again. */
export type ReportStale = (error: Error | undefined) => void;

/** Opens what is read once for all. `report` reaches each who follows, and the last one each who follows later. */
export type LatestSource<T> = (signal: AbortSignal, report: ReportStale) => AsyncIterable<T>;

interface Follower {
  readonly report: ReportStale;
  /** Called as soon as the stream has ended, so that who follows from then on opens another. */
  readonly release: () => void;
}

/**
 * One reader of a stream of states, for any number who follow it: opened when made, closed when disposed of. Each
 * is given the newest value first and then newer ones, without those that it was too slow for. How the stream ends
 * or fails is how it ends or fails for each.
 */
export class LatestValue<T> implements Disposable {
  readonly #stop = new AbortController();
  readonly #followers = new Set<Follower>();
  readonly #changes = new Changes();
  #news: { readonly value: T } | undefined;
  #end: { readonly error?: unknown } | undefined;
  #stale: Error | undefined;

  constructor(open: LatestSource<T>) {
    void this.#read(open);
  }

  /** Ends with the signal, without an error. */
  async *follow(report: ReportStale, release: () => void, signal: AbortSignal): AsyncGenerator<T, undefined> {
    const follower = { report, release };
    this.#followers.add(follower);
    try {
      if (this.#stale) report(this.#stale);
      for (let seen: { readonly value: T } | undefined; !signal.aborted; ) {
        if (this.#news !== seen) {
          seen = this.#news;
          if (seen) yield seen.value;
        } else if (this.#end) {
          if ('error' in this.#end) throw this.#end.error;
          return;
        } else await this.#changes.next(signal);
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
    try {
      const report: ReportStale = (error) => {
        if (signal.aborted) return;
        this.#stale = error;
        for (const follower of [...this.#followers]) follower.report(error);
      };
      for await (const value of open(signal, report)) {
        this.#news = { value };
        this.#changes.announce();
      }
      this.#end = {};
    } catch (error) {
      this.#end = { error };
    }
    this.#changes.announce();
    for (const { release } of [...this.#followers]) release();
  }
}

/**
 * Follows from the first `next` until the abort of the signal, which ends it without an error, or the end of what it
 * follows. It releases what it holds then.
 */
export async function* following<T>(
  join: () => SharedHandle<LatestValue<T>>,
  report: ReportStale,
  signal: AbortSignal,
): AsyncGenerator<T, undefined> {
  if (signal.aborted) return;
  const held = join();
  const release = () => held[Symbol.dispose]();
  // Whoever is busy with a value when the signal is aborted may never ask for the next.
  signal.addEventListener('abort', release, { once: true });
  try {
    yield* held.value.follow(report, release, signal);
  } finally {
    signal.removeEventListener('abort', release);
    release();
  }
}

/** What to make of each value of a stream. */
export interface StreamTransform<A, B> {
  /** Undefined passes the value over. */
  read(value: A): B | undefined;
  /** Called once, at its end of whatever kind. */
  over?(): void;
}

/** Another stream out of each value of one, but for one that is the very one right before. */
export async function* mapStream<A, B>(
  source: AsyncIterable<A>,
  transform: StreamTransform<A, B>,
): AsyncGenerator<B, undefined> {
  let last: B | undefined;
  try {
    for await (const one of source) {
      const value = transform.read(one);
      const isNews = value !== undefined && value !== last;
      last = value;
      if (isNews) yield value;
    }
  } finally {
    transform.over?.();
  }
}

/** The work in progress of an owner, which ends with the owner. */
export class UnderWay {
  readonly #all = new Set<LinkedSignal>();
  #end: { readonly reason: unknown } | undefined;

  /** A signal for one piece of work, aborted with the caller's and by `end`; dispose of it when the work is done. */
  begin(caller?: AbortSignal): LinkedSignal {
    const linked = linkedTo(caller);
    if (this.#end) linked.abort(this.#end.reason);
    const work: LinkedSignal = {
      signal: linked.signal,
      abort: linked.abort,
      [Symbol.dispose]: () => {
        linked[Symbol.dispose]();
        this.#all.delete(work);
      },
    };
    this.#all.add(work);
    return work;
  }

  /** Aborts all work in progress and all that begins later. */
  end(reason: unknown): void {
    this.#end ??= { reason };
    for (const work of [...this.#all]) work.abort(reason);
  }
}
