/** A wake-up that may be fired at any time and is remembered until somebody waited for it. */
export class Trigger {
  #fired = false;
  #waiters = new Set<() => void>();

  fire(): void {
    this.#fired = true;
    for (const wake of this.#waiters) wake();
  }

  /** Calls at each fire, at once when one was missed, until the signal is aborted. */
  follow(told: () => void, signal: AbortSignal): void {
    if (signal.aborted) return;
    const wake = () => {
      this.#fired = false;
      told();
    };
    this.#waiters.add(wake);
    signal.addEventListener('abort', () => this.#waiters.delete(wake), { once: true });
    if (this.#fired) wake();
  }

  /** Resolves at the next fire, at once when one was missed; rejects with the signal's reason when aborted. */
  wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = () => {
        signal.removeEventListener('abort', abort);
        this.#waiters.delete(wake);
      };
      const wake = () => {
        if (!this.#fired) return;
        this.#fired = false;
        settle();
        resolve();
      };
      const abort = () => {
        settle();
        reject(signal.reason);
      };
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      this.#waiters.add(wake);
      wake();
    });
  }
}
