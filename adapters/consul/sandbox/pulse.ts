import type { Clock } from '../../../src/async/clock.ts';

/** Wakes everyone who waits at the moment it is fired. */
export class Pulse {
  #waiting = new Set<() => void>();

  fire(): void {
    const woken = this.#waiting;
    this.#waiting = new Set();
    for (const wake of woken) wake();
  }

  /** Resolves at the next fire, after `ms`, or when aborted, whichever comes first. */
  wait(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const end = () => {
        cancel();
        this.#waiting.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      this.#waiting.add(end);
      const cancel = clock.after(ms, end);
      signal.addEventListener('abort', end, { once: true });
    });
  }
}
