import { Alarms } from './alarms.ts';

/** Time as everything here sees it; tests and the simulation inject their own. */
export interface Clock {
  /** Wall clock, milliseconds since the epoch. May step. */
  now(): number;
  /** Milliseconds since an arbitrary start; never goes back, and stands still during a suspend. */
  monotonic(): number;
  /** Calls `act` once after `ms`, never before this returns; what it returns takes that back. */
  after(ms: number, act: () => void): () => void;
  /** Resolves after `ms`; rejects with the signal's reason when aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** setTimeout fires at once above 2^31-1 ms. */
const LONGEST_TIMER = 2 ** 31 - 1;

const alarms = new Alarms({
  now: () => performance.now(),
  wake(ms, act) {
    const handle = setTimeout(act, Math.min(Math.ceil(ms), LONGEST_TIMER));
    return () => clearTimeout(handle);
  },
});

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after: (ms, act) => alarms.after(ms, act),
  sleep: (ms, signal) => sleepOn(systemClock, ms, signal),
};

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
