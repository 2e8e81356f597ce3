import { once } from 'node:events';
import { schedule } from 'node-cron';
import type { Clock } from '../async/clock.ts';
import type { Log } from '../mesh/log.ts';

/**
 * Every ten minutes: long enough to cost nothing, short enough that a lost event is found well within the life of any
 * leaf.
 */
const RESYNC_CRON = '*/10 * * * *';
/** Spreads the replicas of a fleet over the interval, in milliseconds. */
const RESYNC_JITTER_MS = 120_000;

/** Loading the calendar that node-cron needs takes 30 ms, in which a start could not continue. */
const BEGIN_AFTER_MS = 5_000;

export interface ResyncOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** A resync runs only where something is led. */
  readonly leads: () => boolean;
  /** Compares everything with everything. */
  readonly resync: () => void | Promise<void>;
}

/**
 * The slow, periodic comparison of everything, so that nothing depends on a single timer, watch or stream. Ends with
 * the signal.
 */
export async function resyncRegularly(
  { clock, log, leads, resync }: ResyncOptions,
  signal: AbortSignal,
): Promise<void> {
  await clock.sleep(BEGIN_AFTER_MS, signal).catch(() => {});
  if (signal.aborted) return;
  const task = schedule(RESYNC_CRON, () => resync(), {
    name: 'resync',
    noOverlap: true,
    maxRandomDelay: RESYNC_JITTER_MS,
    distributed: true,
    runCoordinator: { shouldRun: () => leads() },
    suppressMissedWarning: true,
    logger: {
      info: () => {},
      debug: () => {},
      warn: (message) => log.warn({}, message),
      error: (error) => log.error({ err: error }, 'a resync failed; the next one runs as planned'),
    },
    unref: true,
  });
  await once(signal, 'abort');
  await task.destroy();
}

const LOOK_MS = 15_000;
/** NTP slews by less; a suspend or a stepped clock shows as more. */
const STEP_MS = 2_000;

/**
 * Yields when the wall clock moved against the monotonic one: a suspend, a migration, a step. Timers do not notice
 * that, so every schedule must be checked again. Ends with the signal.
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
