/** How many writes may be under way, and until when none may: what the API server's answers have taught so far. */
export interface Concurrency {
  /** At least LEAST; the whole part counts. */
  readonly limit: number;
  /** Monotonic: nothing is sent before, as `Retry-After` asked. */
  readonly heldUntil: number;
  /** Monotonic: what was sent before the last cut says nothing new. */
  readonly cutAt: number;
  /** Of calm times; follows slowly when the server stays slower. */
  readonly baselineMs: number | undefined;
  readonly window: { readonly answers: number; readonly totalMs: number; readonly peak: number };
}

export interface ServerAnswer {
  /** Monotonic. */
  readonly sentAt: number;
  /** Monotonic. */
  readonly now: number;
  /** HTTP status; 0 when there was no response. */
  readonly status: number;
  readonly retryAfterMs?: number | undefined;
  /** Writes under way when it came, itself included. */
  readonly underWay: number;
}

/** One would be enough to live; with four a slow answer does not stop everything. */
export const LEAST = 4;
/** As much as a bare API server of two cores can make use of. */
const START = 16;
/** Priority and Fairness says a second; a header that says hours would stop a gateway's rotation. */
const BUSY_MS = 1_000;
export const LONGEST_HOLD_MS = 60_000;
/** Requests that queue behind each other take longer without being too many: only what is far beyond that counts. */
const INFLATED = { times: 8, plusMs: 50 };
const FLAT = { times: 4, plusMs: 25 };
const DECREASE = 0.8;
const DRIFT = 0.02;
const EMPTY = { answers: 0, totalMs: 0, peak: 0 };

export const startingConcurrency = (most: number): Concurrency => ({
  limit: Math.min(START, most),
  heldUntil: Number.NEGATIVE_INFINITY,
  cutAt: Number.NEGATIVE_INFINITY,
  baselineMs: undefined,
  window: EMPTY,
});

/**
 * Additive increase, multiplicative decrease. One more for each round of answers that came in the usual time while
 * all of the limit was used; a fifth less for a round that took far longer; half for a server that is busy or silent,
 * once for all that was under way.
 */
export function answered(state: Concurrency, answer: ServerAnswer, most: number): Concurrency {
  const { status, now, sentAt } = answer;
  const least = Math.min(LEAST, most);
  const said = answer.retryAfterMs;
  if (status === 0 || status === 429 || (status === 503 && said !== undefined)) {
    const holdMs = status === 0 ? 0 : Math.min(said ?? BUSY_MS, LONGEST_HOLD_MS);
    const heldUntil = holdMs > 0 ? Math.max(state.heldUntil, now + holdMs) : state.heldUntil;
    if (sentAt < state.cutAt) return { ...state, heldUntil };
    return { ...state, heldUntil, limit: Math.max(least, state.limit / 2), cutAt: now, window: EMPTY };
  }
  const window = {
    answers: state.window.answers + 1,
    totalMs: state.window.totalMs + Math.max(0, now - sentAt),
    peak: Math.max(state.window.peak, answer.underWay),
  };
  if (window.answers < state.limit) return { ...state, window };
  const meanMs = window.totalMs / window.answers;
  const before = state.baselineMs ?? meanMs;
  const baselineMs = meanMs < before ? meanMs : before + (meanMs - before) * DRIFT;
  const next = { ...state, baselineMs, window: EMPTY };
  if (meanMs > before * INFLATED.times + INFLATED.plusMs)
    return { ...next, limit: Math.max(least, state.limit * DECREASE), cutAt: now };
  const isFlat = meanMs <= before * FLAT.times + FLAT.plusMs;
  const isUsed = window.peak >= Math.floor(state.limit);
  return isFlat && isUsed ? { ...next, limit: Math.min(most, state.limit + 1) } : next;
}
