import type { Clock } from './clock.ts';

/** One moment, moved at will, after which `late` is called once. */
export class CallDeadline {
  readonly #clock: Clock;
  readonly #late: (reason: string) => void;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, late: (reason: string) => void) {
    this.#clock = clock;
    this.#late = late;
  }

  /** Replaces the moment set before. */
  set(ms: number, reason: string): void {
    this.clear();
    this.#cancel = this.#clock.after(ms, () => this.#late(reason));
  }

  clear(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
