import type { Clock } from './clock.ts';

export interface TokenBucketOptions {
  readonly clock: Pick<Clock, 'monotonic' | 'sleep'>;
  /** Number of tokens in a full bucket. */
  readonly burst: number;
  /** Milliseconds in which one token is added. */
  readonly refillMs: number;
}

/** Limits how often something is done. It starts full. */
export class TokenBucket {
  readonly #options: TokenBucketOptions;
  #tokens: number;
  #filledAt: number;

  constructor(options: TokenBucketOptions) {
    this.#options = options;
    this.#tokens = options.burst;
    this.#filledAt = options.clock.monotonic();
  }

  /** Takes a token if there is one. */
  tryTake(): boolean {
    const { clock, burst, refillMs } = this.#options;
    const now = clock.monotonic();
    this.#tokens = Math.min(burst, this.#tokens + (now - this.#filledAt) / refillMs);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Resolves when a token was taken; rejects with the signal's reason. */
  async take(signal: AbortSignal): Promise<void> {
    const { clock, refillMs } = this.#options;
    while (!this.tryTake()) await clock.sleep(Math.ceil((1 - this.#tokens) * refillMs), signal);
  }
}
