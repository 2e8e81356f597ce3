import type { Clock } from '../mesh/clock.ts';

/** Resolves once nothing was heard for as long as allowed; rejects with the signal's reason. */
export class Watchdog {
  readonly #clock: Clock;
  #heardAt: number;
  #limitMs: number;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#heardAt = clock.monotonic();
    this.#limitMs = limitMs;
  }

  heard(limitMs = this.#limitMs): void {
    this.#heardAt = this.#clock.monotonic();
    this.#limitMs = limitMs;
  }

  async silence(signal: AbortSignal): Promise<void> {
    for (;;) {
      const left = this.#heardAt + this.#limitMs - this.#clock.monotonic();
      if (left <= 0) return;
      await this.#clock.sleep(left, signal);
    }
  }
}
