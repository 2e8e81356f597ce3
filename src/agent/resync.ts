import { schedule } from 'node-cron';
import type { Log } from '../mesh/log.ts';

/** Every ten minutes: long enough to cost nothing, short enough that a lost event is found well within any leaf's life. */
export const SWEEP_CRON = '*/10 * * * *';
/** Spreads the replicas of a fleet over the interval, in milliseconds. */
const SWEEP_JITTER_MS = 120_000;

export interface SweepOptions {
  readonly log: Log;
  /** A sweep runs only where something is led. */
  readonly leads: () => boolean;
  /** Compares everything with everything. */
  readonly sweep: () => void | Promise<void>;
}

/** Starts the slow, periodic comparison of everything; no single timer, watch or stream is trusted. */
export function startResyncs({ log, leads, sweep }: SweepOptions): AsyncDisposable {
  const task = schedule(SWEEP_CRON, () => sweep(), {
    name: 'sweep',
    noOverlap: true,
    maxRandomDelay: SWEEP_JITTER_MS,
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
  return {
    async [Symbol.asyncDispose]() {
      await task.destroy();
    },
  };
}
