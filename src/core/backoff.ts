export interface Backoff {
  readonly minMs?: number;
  readonly maxMs?: number;
  /** Remaining life of what a success would replace; no wait is longer than a tenth of it. */
  readonly remainingMs?: number | undefined;
}

/** Lower bound, however short the remaining life, so that a failing loop never spins. */
const SHORTEST_MS = 100;

/**
 * How long to wait after the `attempt`-th failure in a row, counted from 1: full jitter below a ceiling that doubles
 * from `minMs` (1 s) to `maxMs` (5 min). `random` is uniform in [0, 1).
 *
 * Once that life is over, the ceiling is a tenth of `maxMs`: often enough to end an outage soon.
 */
export function retryDelay(attempt: number, random: () => number, options: Backoff = {}): number {
  const { minMs = 1000, maxMs = 300_000, remainingMs } = options;
  const doubled = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30));
  const tenth = remainingMs === undefined ? maxMs : (remainingMs > 0 ? remainingMs : maxMs) / 10;
  const ceiling = Math.max(SHORTEST_MS, Math.min(doubled, tenth));
  return SHORTEST_MS + random() * (ceiling - SHORTEST_MS);
}
