import type { Clock } from './clock.ts';
import { limitedTo } from './linked-signal.ts';
import { WaitingList } from './waiting-list.ts';

const LATE = new Error('the time has passed');

/** A wake-up that may be fired at any time and is remembered until somebody waits for it. */
export class Trigger {
  #fired = false;
  readonly #waiting = new WaitingList<undefined, void>((waiting) => {
    for (const { admit } of waiting) {
      if (!this.#fired) break;
      this.#fired = false;
      admit();
    }
    return undefined;
  });

  /** Wakes the waiter that has waited the longest. */
  fire(): void {
    this.#fired = true;
    this.#waiting.look();
  }

  /** Resolves at the next fire, at once when one was missed; rejects with the signal's reason when aborted. */
  wait(signal: AbortSignal): Promise<void> {
    return this.#waiting.join(undefined, signal);
  }

  /** Resolves at the next fire or when `ms` have passed; rejects with the signal's reason when aborted. */
  async waitFor(ms: number, clock: Pick<Clock, 'after'>, signal: AbortSignal): Promise<void> {
    using limited = limitedTo(clock, Math.max(0, ms), () => LATE, signal);
    await this.wait(limited.signal).catch((reason) => {
      if (reason !== LATE) throw reason;
    });
  }
}
