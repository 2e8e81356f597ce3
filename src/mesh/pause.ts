import type { Clock } from './clock.ts';
import { linkedTo } from './linked-signal.ts';
import type { Trigger } from './trigger.ts';

/** An error of its own has a stack, for each pause. */
const WOKEN = new Error('woken');

/**
 * Waits until the trigger fires or `ms` have passed, whichever comes first; without `ms`, for the trigger alone.
 * Rejects with the signal's reason when aborted, and leaves neither sleep nor waiter behind.
 */
export async function pause(clock: Clock, ms: number | undefined, wake: Trigger, signal: AbortSignal): Promise<void> {
  if (ms === undefined) return wake.wait(signal);
  using either = linkedTo(signal);
  const waits = [wake.wait(either.signal), clock.sleep(Math.max(0, ms), either.signal)];
  try {
    await Promise.race(waits);
  } finally {
    either.abort(WOKEN);
    await Promise.allSettled(waits);
  }
}
