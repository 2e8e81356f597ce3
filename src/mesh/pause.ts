import type { Clock } from './clock.ts';
import type { Trigger } from './trigger.ts';

/**
 * Waits until the trigger fires or `ms` have passed, whichever comes first; without `ms`, for the trigger alone.
 * Rejects with the signal's reason when aborted, and leaves neither sleep nor waiter behind.
 */
export async function pause(clock: Clock, ms: number | undefined, wake: Trigger, signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  const either = AbortSignal.any([signal, done.signal]);
  const waits = [wake.wait(either)];
  if (ms !== undefined) waits.push(clock.sleep(Math.max(0, ms), either));
  try {
    await Promise.race(waits);
  } finally {
    done.abort(new Error('woken'));
    await Promise.allSettled(waits);
  }
}
