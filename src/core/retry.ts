interface Backoff {
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

const HOUR = 3_600_000;

/**
 * How many certificates one MeshCertificate may request in an hour, given their lifetime: six times what the schedule
 * needs, and at least 30. A CA that shortens lifetimes, or a spec that it can never satisfy, does not cause a storm of
 * requests (cert-manager issues 7741 and 8380).
 */
export function attemptsPerHour(leafLifetimeMs: number): number {
  const planned = HOUR / Math.max(1000, leafLifetimeMs * 0.6);
  return Math.max(30, Math.ceil(planned * 6));
}

/** A token bucket without a clock of its own: it refills evenly, and starts with an hour's budget. */
export class AttemptBudget {
  #tokens: number | undefined;
  #at: number | undefined;

  /** Milliseconds to wait before the next attempt, or 0, which spends one attempt. `now` is on the monotonic clock. */
  take(now: number, perHour: number): number {
    const elapsed = Math.max(0, now - (this.#at ?? now));
    const tokens = Math.min(perHour, (this.#tokens ?? perHour) + (elapsed * perHour) / HOUR);
    this.#at = now;
    if (tokens >= 1) {
      this.#tokens = tokens - 1;
      return 0;
    }
    this.#tokens = tokens;
    return Math.ceil(((1 - tokens) * HOUR) / perHour);
  }
}
