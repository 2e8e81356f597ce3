import type { Clock } from '../async/clock.ts';

const LOOK_MS = 15_000;
/** NTP slews by less; a suspend or a stepped clock shows as more. */
const STEP_MS = 2_000;

/**
 * Tells when the wall clock moved against the monotonic one: a suspend, a migration, a step. Timers know nothing of
 * it, so every schedule must be looked at again. Ends with the signal.
 */
export async function watchClock(clock: Clock, stepped: (ms: number) => void, signal: AbortSignal): Promise<void> {
  let offset = clock.now() - clock.monotonic();
  while (!signal.aborted) {
    await clock.sleep(LOOK_MS, signal).catch(() => {});
    const next = clock.now() - clock.monotonic();
    if (Math.abs(next - offset) > STEP_MS && !signal.aborted) stepped(Math.round(next - offset));
    offset = next;
  }
}
