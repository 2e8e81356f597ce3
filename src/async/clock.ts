/** The source of time for all code here; tests and the simulation inject their own. */
export interface Clock {
  /** Wall clock, milliseconds since the epoch. May step. */
  now(): number;
  /** Milliseconds since an arbitrary start; never goes back, and stops during a suspend. */
  monotonic(): number;
  /** Calls `act` once after `ms`, never before this returns; returns a function that cancels it. */
  after(ms: number, act: () => void): () => void;
  /** Resolves after `ms`; rejects with the signal's reason when aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** setTimeout fires at once above 2^31-1 ms. */
const LONGEST_TIMER = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after,
  sleep: (ms, signal) => sleepOn(systemClock, ms, signal),
};

function after(ms: number, act: () => void): () => void {
  let timer: NodeJS.Timeout;
  const wait = (left: number) => {
    const part = Math.min(left, LONGEST_TIMER);
    timer = setTimeout(() => (left > part ? wait(left - part) : act()), part);
  };
  wait(Math.ceil(ms));
  return () => clearTimeout(timer);
}

/** `sleep`, for a clock that has `after`. */
export function sleepOn(clock: Pick<Clock, 'after'>, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = clock.after(ms, () => {
      signal?.removeEventListener('abort', abort);
      resolve();
    });
    signal?.addEventListener('abort', abort, { once: true });
  });
}

/** One moment, moved at will, after which `late` is called once. */
export class CallDeadline {
  readonly #clock: Clock;
  readonly #late: (reason: string) => void;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, late: (reason: string) => void) {
    this.#clock = clock;
    this.#late = late;
  }

  /** Replaces the moment set before. */
  set(ms: number, reason: string): void {
    this.clear();
    this.#cancel = this.#clock.after(ms, () => this.#late(reason));
  }

  clear(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
