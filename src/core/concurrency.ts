/** How many writes may be in flight, and until when none may: learned from the API server's responses. */
export interface Concurrency {
  /** At least LEAST; only the whole part counts. */
  readonly limit: number;
  /** Monotonic: nothing is sent before this time, as `Retry-After` requested. */
  readonly heldUntil: number;
  /** Monotonic: responses to requests sent before the last cut are ignored. */
  readonly cutAt: number;
  /** Latency without load; follows slowly when the server stays slower. */
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
  /** Writes in flight when the response came, including this one. */
  readonly underWay: number;
}

/** One would be enough to make progress; with four, one slow response does not stop everything. */
export const LEAST = 4;
/** As much as a bare API server with two cores can use. */
const START = 16;
/** Priority and Fairness sends one second; a header with hours would stop a gateway's rotation. */
const BUSY_MS = 1_000;
export const LONGEST_HOLD_MS = 60_000;
/** Requests that queue behind each other take longer without being too many: only a far longer response counts. */
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
 * Additive increase, multiplicative decrease. One more for each round of responses with the usual latency while the
 * limit was fully used; a fifth less for a round that took far longer; half, once for all writes in flight, for a
 * server that is busy or silent.
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
