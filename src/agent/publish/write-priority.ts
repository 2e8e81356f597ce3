import type { Clock } from '../../async/clock.ts';
import { once } from '../../async/once.ts';

/** Later writes under way at a time, while nothing urgent is. */
const AT_ONCE = 8;
/** Longer than a thousand identities that are due at once take; from then on one at a time goes in between. */
const PATIENCE_MS = 5_000;
/** Several times what lies between two urgent writes of many; a CA that has hung for longer delays nobody. */
const LINGER_MS = 250;

interface WaitingWrite {
  readonly since: number;
  readonly admit: () => void;
}

/**
 * Lets what the gateway waits for go first: a status costs the API server three times what a Secret does, and is for
 * people. Later writes wait while urgent ones are under way, and for a moment after where more are coming, but none
 * for ever. One instance for each agent.
 */
export class WritePriority {
  readonly #clock: Clock;
  readonly #waiting = new Set<WaitingWrite>();
  #urgent = 0;
  #coming = 0;
  /** When the last urgent write was answered, on the monotonic clock. */
  #answeredAt = Number.NEGATIVE_INFINITY;
  #later = 0;
  /** Takes back the next look at who may go. */
  #timer: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Notes a write that others wait for; dispose it when it has been answered. */
  urgent(): Disposable {
    this.#urgent += 1;
    return once(() => {
      this.#urgent -= 1;
      this.#answeredAt = this.#clock.monotonic();
      this.#admit();
    });
  }

  /** Notes that an urgent write is likely soon, such as while a certificate is asked for. */
  readonly coming = (): Disposable => {
    this.#coming += 1;
    return once(() => {
      this.#coming -= 1;
      this.#admit();
    });
  };

  /** Resolves when a write that nobody waits for may go, in the order of asking; rejects with the signal's reason. */
  later(signal: AbortSignal): Promise<Disposable> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const abort = () => {
        this.#waiting.delete(waiting);
        reject(signal.reason);
      };
      const waiting: WaitingWrite = {
        since: this.#clock.monotonic(),
        admit: () => {
          signal.removeEventListener('abort', abort);
          resolve(this.#turn());
        },
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.add(waiting);
      this.#admit();
    });
  }

  #turn(): Disposable {
    this.#later += 1;
    return once(() => {
      this.#later -= 1;
      this.#admit();
    });
  }

  #admit(): void {
    this.#timer?.();
    this.#timer = undefined;
    const now = this.#clock.monotonic();
    const lingerMs = this.#coming > 0 ? this.#answeredAt + LINGER_MS - now : 0;
    const isCalm = this.#urgent === 0 && lingerMs <= 0;
    for (const waiting of this.#waiting) {
      const leftMs = waiting.since + PATIENCE_MS - now;
      const most = isCalm ? AT_ONCE : leftMs <= 0 ? 1 : 0;
      if (this.#later >= most) {
        if (most === 0) this.#lookIn(this.#urgent === 0 ? Math.min(leftMs, lingerMs) : leftMs);
        return;
      }
      this.#waiting.delete(waiting);
      waiting.admit();
    }
  }

  #lookIn(ms: number): void {
    this.#timer = this.#clock.after(ms, () => {
      this.#timer = undefined;
      this.#admit();
    });
  }
}
