import type { Clock } from './clock.ts';
import { once } from './linked-signal.ts';

/** No network sends smaller packets; each piece costs microseconds, however small it is. */
const LEAST_PIECE = 256;
/** Allowed for an answer that is written field by field. */
const SMALL_PIECES = 1024;

/**
 * All bytes of a stream, or undefined when there are more than `most`, or far more pieces than that many bytes need;
 * the rest is not read then. Each piece is copied and none is kept, so that small pieces take no more memory than large
 * ones.
 */
export async function bounded(stream: AsyncIterable<Uint8Array>, most: number): Promise<Buffer | undefined> {
  let bytes = Buffer.allocUnsafe(0);
  let size = 0;
  let pieces = SMALL_PIECES + most / LEAST_PIECE;
  for await (const piece of stream) {
    pieces -= 1;
    if (size + piece.length > most || pieces < 0) return undefined;
    if (size + piece.length > bytes.length) {
      const larger = Buffer.allocUnsafe(Math.min(most, Math.max(16_384, 2 * (size + piece.length))));
      bytes.copy(larger, 0, 0, size);
      bytes = larger;
    }
    bytes.set(piece, size);
    size += piece.length;
  }
  return bytes.subarray(0, size);
}

/** Limits concurrency, in order of arrival. */
export class Semaphore {
  readonly #waiting = new WaitingList<undefined, Disposable>((waiting) => {
    for (const { admit } of waiting) {
      if (this.#free === 0) break;
      this.#free -= 1;
      admit(this.#turn());
    }
    return undefined;
  });
  #free: number;

  constructor(atOnce: number) {
    this.#free = atOnce;
  }

  /** Resolves to a turn, which ends when it is disposed; rejects with the signal's reason. */
  take(signal: AbortSignal): Promise<Disposable> {
    return this.#waiting.join(undefined, signal);
  }

  #turn(): Disposable {
    return once(() => {
      this.#free += 1;
      this.#waiting.look();
    });
  }
}

interface TokenBucketOptions {
  readonly clock: Pick<Clock, 'monotonic' | 'sleep'>;
  /** Number of tokens in a full bucket. */
  readonly burst: number;
  /** Milliseconds in which one token is added. */
  readonly refillMs: number;
}

/** Limits how often something is done. It starts full. */
export class TokenBucket {
  readonly #options: TokenBucketOptions;
  #tokens: number;
  #filledAt: number;

  constructor(options: TokenBucketOptions) {
    this.#options = options;
    this.#tokens = options.burst;
    this.#filledAt = options.clock.monotonic();
  }

  /** Takes a token if there is one. */
  tryTake(): boolean {
    const { clock, burst, refillMs } = this.#options;
    const now = clock.monotonic();
    this.#tokens = Math.min(burst, this.#tokens + (now - this.#filledAt) / refillMs);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Resolves when a token was taken; rejects with the signal's reason. */
  async take(signal: AbortSignal): Promise<void> {
    const { clock, refillMs } = this.#options;
    while (!this.tryTake()) await clock.sleep(Math.ceil((1 - this.#tokens) * refillMs), signal);
  }
}

/** One waiting caller. */
export interface Waiting<About, Turn> {
  readonly about: About;
  /** Ends the wait with this turn. */
  admit(turn: Turn): void;
}

interface Waiter<About, Turn> extends Waiting<About, Turn> {
  readonly reject: (reason: unknown) => void;
}

/**
 * Admits the callers that may go now, in order of arrival. Returns in how many milliseconds to call it again, if the
 * passing of time alone will admit others.
 */
type Admission<About, Turn> = (waiting: Iterable<Waiting<About, Turn>>) => number | undefined;

/** Callers that wait until they are admitted. A caller whose signal is aborted leaves. */
export class WaitingList<About, Turn> {
  readonly #waiting = new Set<Waiting<About, Turn>>();
  /**
   * Who leaves with each signal. All of them share one listener, because thousands may wait with the same signal, and
   * Node.js walks through all listeners of a signal to add one.
   */
  readonly #leaving = new Map<AbortSignal, Set<Waiter<About, Turn>>>();
  readonly #admission: Admission<About, Turn>;
  readonly #clock: Pick<Clock, 'after'> | undefined;
  /** Cancels the scheduled check. */
  #cancel: (() => void) | undefined;

  /** Without a clock, the passing of time admits nobody. */
  constructor(admission: Admission<About, Turn>, clock?: Pick<Clock, 'after'>) {
    this.#admission = admission;
    this.#clock = clock;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Resolves to the turn that the caller is admitted with; rejects with the signal's reason. */
  join(about: About, signal: AbortSignal): Promise<Turn> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const waiting: Waiter<About, Turn> = {
        about,
        reject,
        admit: (turn) => {
          this.#leave(waiting, signal);
          resolve(turn);
        },
      };
      this.#waiting.add(waiting);
      this.#join(waiting, signal);
      this.look();
    });
  }

  /** A signal was aborted. Node.js 20 has no `currentTarget` once a listener with `once` was called. */
  handleEvent({ target }: Event): void {
    const signal = target as AbortSignal;
    for (const waiting of this.#leaving.get(signal) ?? []) {
      this.#leave(waiting, signal);
      waiting.reject(signal.reason);
    }
    this.look();
  }

  /** Something changed: admits the callers that may go now. */
  look(): void {
    this.close();
    if (this.#waiting.size === 0) return;
    const ms = this.#admission(this.#waiting);
    if (ms !== undefined && this.#waiting.size > 0) this.#cancel = this.#clock?.after(ms, () => this.look());
  }

  /** Leaves no timer behind. */
  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #join(waiting: Waiter<About, Turn>, signal: AbortSignal): void {
    const together = this.#leaving.get(signal);
    if (together) together.add(waiting);
    else {
      this.#leaving.set(signal, new Set([waiting]));
      signal.addEventListener('abort', this, { once: true });
    }
  }

  #leave(waiting: Waiter<About, Turn>, signal: AbortSignal): void {
    this.#waiting.delete(waiting);
    const together = this.#leaving.get(signal);
    together?.delete(waiting);
    if (together?.size !== 0) return;
    this.#leaving.delete(signal);
    signal.removeEventListener('abort', this);
  }
}
