import type { Clock } from './clock.ts';

interface Waiter {
  woken(): void;
}

const NOBODY: readonly Waiter[] = [];

/** A wake-up that may be fired at any time and is remembered until somebody waited for it. */
export class Trigger {
  #fired = false;
  // Mostly one. A thousand MeshCertificates have some each, and a Set weighs more than all else of this.
  #waiters = NOBODY;

  fire(): void {
    this.#fired = true;
    for (const waiter of this.#waiters) waiter.woken();
  }

  /** Calls at each fire, at once when one was missed, until what it returns is called. */
  follow(told: () => void): () => void {
    const waiter = {
      woken: () => {
        this.#fired = false;
        told();
      },
    };
    this.#waiters = [...this.#waiters, waiter];
    if (this.#fired) waiter.woken();
    return () => this.#forget(waiter);
  }

  /** Resolves at the next fire, at once when one was missed; rejects with the signal's reason when aborted. */
  wait(signal: AbortSignal): Promise<void> {
    return this.#settled(signal);
  }

  /** Resolves at the next fire or when `ms` have passed; rejects with the signal's reason when aborted. */
  waitFor(ms: number, clock: Pick<Clock, 'after'>, signal: AbortSignal): Promise<void> {
    return this.#settled(signal, (over) => clock.after(Math.max(0, ms), over));
  }

  #settled(signal: AbortSignal, limit?: (over: () => void) => () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#fired) {
        this.#fired = false;
        return resolve();
      }
      let cancel: (() => void) | undefined;
      const end = () => {
        cancel?.();
        this.#forget(waiter);
        signal.removeEventListener('abort', waiter);
      };
      const waiter = {
        woken: () => {
          if (!this.#fired) return;
          this.#fired = false;
          end();
          resolve();
        },
        handleEvent: () => {
          end();
          reject(signal.reason);
        },
      };
      this.#waiters = [...this.#waiters, waiter];
      signal.addEventListener('abort', waiter, { once: true });
      cancel = limit?.(() => {
        end();
        resolve();
      });
    });
  }

  #forget(waiter: Waiter): void {
    const others = this.#waiters.filter((one) => one !== waiter);
    this.#waiters = others.length === 0 ? NOBODY : others;
  }
}
