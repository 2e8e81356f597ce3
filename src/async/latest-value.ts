import type { SharedHandle } from './sharing.ts';

/** Why the newest value may be out of date; undefined: it is up to date again. */
export type ReportStale = (error: Error | undefined) => void;

/** Opens what is read once for all. `report` reaches each who follows, and the last one each who follows later. */
export type LatestSource<T> = (signal: AbortSignal, report: ReportStale) => AsyncIterable<T>;

/**
 * One reader of a stream of states, for any number who follow it: opened when made, closed when disposed of. Each
 * is given the newest value first and then newer ones, without those that it was too slow for. How the stream ends
 * or fails is how it ends or fails for each.
 */
export class LatestValue<T> implements Disposable {
  readonly #stop = new AbortController();
  readonly #followers = new Set<Follower<T>>();
  #news: News<T> | undefined;
  #end: End | undefined;
  #stale: Error | undefined;

  constructor(open: LatestSource<T>) {
    void this.#read(open);
  }

  /** Answers what is known already. */
  join(follower: Follower<T>): News<T> | undefined {
    this.#followers.add(follower);
    if (this.#stale) follower.report(this.#stale);
    if (this.#end) follower.end(this.#end);
    return this.#news;
  }

  leave(follower: Follower<T>): void {
    this.#followers.delete(follower);
  }

  [Symbol.dispose](): void {
    this.#stop.abort(new Error('nobody follows it any more'));
  }

  async #read(open: LatestSource<T>): Promise<void> {
    const { signal } = this.#stop;
    const each = (word: (follower: Follower<T>) => void) => {
      if (!signal.aborted) for (const follower of [...this.#followers]) word(follower);
    };
    const report: ReportStale = (error) => {
      this.#stale = error;
      each((follower) => follower.report(error));
    };
    let end: End = OVER;
    try {
      for await (const value of open(signal, report)) {
        const news = { done: false, value } as const;
        this.#news = news;
        each((follower) => follower.tell(news));
      }
    } catch (error) {
      end = { error };
    }
    this.#end = end;
    each((follower) => follower.end(end));
  }
}

type News<T> = IteratorYieldResult<T>;
type Over = IteratorReturnResult<undefined>;
type End = Over | { readonly error: unknown };

const OVER: Over = Object.freeze({ done: true, value: undefined });

/**
 * Follows from the first `next` until `return`, the abort of the signal, which ends it without an error, or the end
 * of what it follows. It lets go of what it holds then. One `next` at a time.
 */
export function following<T>(
  join: () => SharedHandle<LatestValue<T>>,
  report: ReportStale,
  signal: AbortSignal,
): AsyncIterableIterator<T, undefined> {
  return new Follower(join, report, signal);
}

/** Small, since there is one for each MeshCertificate: neither a generator nor a signal of its own. */
class Follower<T> implements AsyncIterableIterator<T, undefined> {
  readonly report: ReportStale;
  readonly #signal: AbortSignal;
  /** Until it has joined. */
  #join: (() => SharedHandle<LatestValue<T>>) | undefined;
  #held: SharedHandle<LatestValue<T>> | undefined;
  #news: News<T> | undefined;
  #end: End | undefined;
  #waiting: ((answer: News<T> | Over | Promise<never>) => void) | undefined;

  constructor(join: () => SharedHandle<LatestValue<T>>, report: ReportStale, signal: AbortSignal) {
    this.report = report;
    this.#signal = signal;
    this.#join = join;
  }

  next(): Promise<News<T> | Over> {
    if (this.#waiting) return Promise.reject(new TypeError('the newest value is asked for once at a time'));
    if (this.#signal.aborted) this.#leave();
    try {
      this.#begin();
    } catch (error) {
      this.end({ error });
    }
    return new Promise((waiting) => {
      this.#waiting = waiting;
      this.#answer();
    });
  }

  async return(): Promise<Over> {
    this.#leave();
    return OVER;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  handleEvent(): void {
    this.#leave();
  }

  tell(news: News<T>): void {
    this.#news = news;
    this.#answer();
  }

  /** The last value comes before the end. */
  end(end: End): void {
    this.#letGo();
    this.#end ??= end;
    this.#answer();
  }

  #begin(): void {
    if (!this.#join) return;
    this.#held = this.#join();
    this.#join = undefined;
    this.#signal.addEventListener('abort', this, { once: true });
    this.#news = this.#held.value.join(this);
  }

  #answer(): void {
    const waiting = this.#waiting;
    const found = this.#news ?? this.#end;
    if (!waiting || !found) return;
    this.#waiting = undefined;
    if (this.#news) this.#news = undefined;
    else this.#end = OVER;
    waiting('error' in found ? Promise.reject(found.error) : found);
  }

  #leave(): void {
    this.#news = undefined;
    this.#end = OVER;
    this.#letGo();
    this.#answer();
  }

  #letGo(): void {
    this.#join = undefined;
    this.#signal.removeEventListener('abort', this);
    this.#held?.value.leave(this);
    this.#held?.[Symbol.dispose]();
    this.#held = undefined;
  }
}
