import type { Clock } from '../../async/clock.ts';
import { once } from '../../async/once.ts';
import { type Waiting, WaitingList } from '../../async/waiting-list.ts';

/** Later writes in flight at a time, while nothing is urgent. */
const AT_ONCE = 8;
/**
 * Longer than a thousand identities that are due at once take; after this time one later write at a time is let
 * through.
 */
const PATIENCE_MS = 5_000;
/** Several times the interval between two urgent writes of many; a CA that hangs for longer delays nobody. */
const LINGER_MS = 250;

/**
 * Lets the writes that the gateway waits for go first: a status costs the API server three times as much as a Secret,
 * and is for people. Later writes wait while urgent ones are in flight, and for a moment afterwards if more are coming,
 * but never indefinitely. One instance for each agent.
 */
export class WritePriority {
  readonly #clock: Clock;
  /** The time at which each began to wait. */
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

  /** Announces a write that others wait for; dispose it after the response. */
  urgent(): Disposable {
    this.#urgent += 1;
    return once(() => {
      this.#urgent -= 1;
      this.#answeredAt = this.#clock.monotonic();
      this.#waiting.look();
    });
  }

  /** Announces that an urgent write is likely soon, such as while a certificate is requested. */
  readonly coming = (): Disposable => {
    this.#coming += 1;
    return once(() => {
      this.#coming -= 1;
      this.#waiting.look();
    });
  };

  /** Resolves when a write that nobody waits for may go, in order of request; rejects with the signal's reason. */
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
