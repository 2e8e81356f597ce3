import type { Clock } from '../async/clock.ts';
import { linkedTo } from '../async/linked-signal.ts';

/** Resolves when nothing was heard for the allowed time. */
export class IdleWatchdog {
  readonly #clock: Clock;
  #heardAt: number;
  #limitMs: number;
  #reconsider: (() => void) | undefined;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#heardAt = clock.monotonic();
    this.#limitMs = limitMs;
  }

  /** Restarts the wait, from now on with this limit if one is given. */
  heard(limitMs = this.#limitMs): void {
    const sooner = limitMs < this.#limitMs;
    this.#heardAt = this.#clock.monotonic();
    this.#limitMs = limitMs;
    if (sooner) this.#reconsider?.();
  }

  /** Resolves after the silence; rejects with the signal's reason. */
  async silence(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const left = this.#heardAt + this.#limitMs - this.#clock.monotonic();
      if (left <= 0) return;
      using sleep = linkedTo(signal);
      this.#reconsider = () => sleep.abort();
      await this.#clock.sleep(left, sleep.signal).catch(() => undefined);
    }
  }
}
