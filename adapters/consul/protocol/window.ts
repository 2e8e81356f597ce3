/** Consul's agents retry a rate-limited signing request once at a random moment in each such window. */
const WINDOW_MS = 30_000;

/** One random moment in each of a series of windows that starts with the first failure. */
export class RetryWindow {
  #end: number | undefined;

  /** Milliseconds from `now` (monotonic) to the next attempt. */
  next(now: number, random: () => number): number {
    const start = this.#end === undefined || this.#end + WINDOW_MS < now ? now : Math.max(now, this.#end);
    this.#end = start + WINDOW_MS;
    return Math.round(start + random() * WINDOW_MS - now);
  }

  /** After a success: the next failure starts a new series. */
  reset(): void {
    this.#end = undefined;
  }
}
