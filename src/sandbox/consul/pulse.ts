import type { Clock } from '../../mesh/clock.ts';

/** Wakes everybody who waits at the moment it is fired. */
export class Pulse {
  #waiting = new Set<() => void>();

  fire(): void {
    const woken = this.#waiting;
    this.#waiting = new Set();
    for (const wake of woken) wake();
  }

  /** Resolves at the next fire, after `ms`, or when aborted, whichever comes first. */
  async wait(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const fired = new Promise<void>((resolve) => {
      this.#waiting.add(resolve);
      over.signal.addEventListener('abort', () => this.#waiting.delete(resolve), { once: true });
    });
    const timer = clock.sleep(ms, AbortSignal.any([signal, over.signal])).catch(() => undefined);
    await Promise.race([fired, timer]);
    over.abort();
    await timer;
  }
}
