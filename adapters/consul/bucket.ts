import type { Clock } from '../../src/async/clock.ts';

/** Consul's advice for blocking queries: two at once, then one per 15 s, whatever made the loop spin. */
const BURST = 2;
const REFILL_MS = 15_000;

/** Paces a loop on the monotonic clock. */
export class RequestBucket {
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #refillMs: number;
  #tokens: number;
  #at: number;

  constructor(clock: Clock, burst = BURST, refillMs = REFILL_MS) {
    this.#clock = clock;
    this.#burst = burst;
    this.#refillMs = refillMs;
    this.#tokens = burst;
    this.#at = clock.monotonic();
  }

  /** Resolves when one more turn is allowed. */
  async take(signal: AbortSignal): Promise<void> {
    this.#refill();
    while (this.#tokens < 1) {
      await this.#clock.sleep(Math.ceil((1 - this.#tokens) * this.#refillMs), signal);
      this.#refill();
    }
    this.#tokens -= 1;
  }

  #refill(): void {
    const now = this.#clock.monotonic();
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) / this.#refillMs);
    this.#at = now;
  }
}
