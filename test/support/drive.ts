import { type FakeClock, settle } from './fake-clock.ts';

/** Far more than any test needs; a test that gets here waits for something that never happens. */
const MOST_STEPS = 5_000;
/** An answer of a server on loopback takes a few turns of the event loop. */
const TURNS = 4;

/**
 * Lets real I/O run and, whenever nothing else happens, advances the clock in small steps, until `done`. The way to
 * wait in tests whose clock is injected and whose servers are real.
 */
export async function drive(
  clock: FakeClock,
  done: () => boolean | Promise<boolean>,
  options: { readonly stepMs?: number; readonly what?: string } = {},
): Promise<void> {
  const { stepMs = 100, what = 'the awaited state' } = options;
  for (let step = 0; step < MOST_STEPS; step++) {
    if (await done()) return;
    for (let turn = 0; turn < TURNS; turn++) await settle();
    await clock.advance(stepMs);
  }
  throw new Error(`${what} did not come`);
}
