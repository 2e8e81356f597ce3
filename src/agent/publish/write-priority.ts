import type { Clock } from '../../async/clock.ts';
import { once } from '../../async/once.ts';
import { type Waiting, WaitingList } from '../../async/waiting-list.ts';

/** Later writes under way at a time, while nothing urgent is. */
const AT_ONCE = 8;
/** Longer than a thousand identities that are due at once take; from then on one at a time goes in between. */
const PATIENCE_MS = 5_000;
/** Several times what lies between two urgent writes of many; a CA that has hung for longer delays nobody. */
const LINGER_MS = 250;

/**
 * Lets what the gateway waits for go first: a status costs the API server three times what a Secret does, and is for
 * people. Later writes wait while urgent ones are under way, and for a moment after where more are coming, but none
 * for ever. One instance for each agent.
 */
export class WritePriority {
  readonly #clock: Clock;
  /** Since when each waits. */
  readonly #waiting: WaitingList<number, Disposable>;
  #urgent = 0;
  #coming = 0;
  /** When the last urgent write was answered, on the monotonic clock. */
  #answeredAt = Number.NEGATIVE_INFINITY;
  #later = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#waiting = new WaitingList((waiting) => this.#admit(waiting), clock);
  }

  /** Notes a write that others wait for; dispose it when it has been answered. */
  urgent(): Disposable {
    this.#urgent += 1;
    return once(() => {
      this.#urgent -= 1;
      this.#answeredAt = this.#clock.monotonic();
      this.#waiting.look();
    });
  }

  /** Notes that an urgent write is likely soon, such as while a certificate is asked for. */
  readonly coming = (): Disposable => {
    this.#coming += 1;
    return once(() => {
      this.#coming -= 1;
      this.#waiting.look();
    });
  };

  /** Resolves when a write that nobody waits for may go, in the order of asking; rejects with the signal's reason. */
  later(signal: AbortSignal): Promise<Disposable> {
    return this.#waiting.join(this.#clock.monotonic(), signal);
  }

  #turn(): Disposable {
    this.#later += 1;
    return once(() => {
      this.#later -= 1;
      this.#waiting.look();
    });
  }

  #admit(waiting: Iterable<Waiting<number, Disposable>>): number | undefined {
    const now = this.#clock.monotonic();
    const lingerMs = this.#coming > 0 ? this.#answeredAt + LINGER_MS - now : 0;
    const isCalm = this.#urgent === 0 && lingerMs <= 0;
    for (const { about: since, admit } of waiting) {
      const leftMs = since + PATIENCE_MS - now;
      const most = isCalm ? AT_ONCE : leftMs <= 0 ? 1 : 0;
      if (this.#later >= most) {
        if (most > 0) return undefined;
        return this.#urgent === 0 ? Math.min(leftMs, lingerMs) : leftMs;
      }
      admit(this.#turn());
    }
    return undefined;
  }
}
