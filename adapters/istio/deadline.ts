import type { Clock } from '../../src/mesh/clock.ts';

/** One moment, moved at will, after which `late` is called once. */
export class Deadline {
  readonly #clock: Clock;
  readonly #late: (reason: string) => void;
  #pending: AbortController | undefined;

  constructor(clock: Clock, late: (reason: string) => void) {
    this.#clock = clock;
    this.#late = late;
  }

  /** Replaces the moment set before. */
  set(ms: number, reason: string): void {
    this.clear();
    const pending = new AbortController();
    this.#pending = pending;
    this.#clock.sleep(ms, pending.signal).then(
      () => this.#late(reason),
      () => undefined,
    );
  }

  clear(): void {
    this.#pending?.abort();
    this.#pending = undefined;
  }
}
