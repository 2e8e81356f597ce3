import { type Clock, sleepOn, systemClock } from '../../src/async/clock.ts';

/** Real time, this many times faster: for waits that a protocol prescribes and that are too long for a test. */
export class ScaledClock implements Clock {
  readonly #factor: number;
  readonly #start = systemClock.now();
  readonly #startMonotonic = systemClock.monotonic();

  constructor(factor: number) {
    this.#factor = factor;
  }

  now(): number {
    return Math.round(this.#start + this.monotonic());
  }

  monotonic(): number {
    return (systemClock.monotonic() - this.#startMonotonic) * this.#factor;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }

  after(ms: number, act: () => void): () => void {
    return systemClock.after(ms / this.#factor, act);
  }
}
