import type { Clock } from './clock.ts';

/** One waiting caller. */
export interface Waiting<About, Turn> {
  readonly about: About;
  /** Ends the wait with this turn. */
  admit(turn: Turn): void;
}

interface Waiter<About, Turn> extends Waiting<About, Turn> {
  readonly reject: (reason: unknown) => void;
}

/**
 * Admits the callers that may go now, in order of arrival. Returns in how many milliseconds to call it again, if the
 * passing of time alone will admit others.
 */
type Admission<About, Turn> = (waiting: Iterable<Waiting<About, Turn>>) => number | undefined;

/** Callers that wait until they are admitted. A caller whose signal is aborted leaves. */
export class WaitingList<About, Turn> {
  readonly #waiting = new Set<Waiting<About, Turn>>();
  /**
   * Who leaves with each signal. All of them share one listener, because thousands may wait with the same signal, and
   * Node.js walks through all listeners of a signal to add one.
   */
  readonly #leaving = new Map<AbortSignal, Set<Waiter<About, Turn>>>();
  readonly #admission: Admission<About, Turn>;
  readonly #clock: Pick<Clock, 'after'> | undefined;
  /** Cancels the scheduled check. */
  #cancel: (() => void) | undefined;

  /** Without a clock, the passing of time admits nobody. */
  constructor(admission: Admission<About, Turn>, clock?: Pick<Clock, 'after'>) {
    this.#admission = admission;
    this.#clock = clock;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Resolves to the turn that the caller is admitted with; rejects with the signal's reason. */
  join(about: About, signal: AbortSignal): Promise<Turn> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const waiting: Waiter<About, Turn> = {
        about,
        reject,
        admit: (turn) => {
          this.#leave(waiting, signal);
          resolve(turn);
        },
      };
      this.#waiting.add(waiting);
      this.#join(waiting, signal);
      this.look();
    });
  }

  /** A signal was aborted. Node.js 20 has no `currentTarget` once a listener with `once` was called. */
  handleEvent({ target }: Event): void {
    const signal = target as AbortSignal;
    for (const waiting of this.#leaving.get(signal) ?? []) {
      this.#leave(waiting, signal);
      waiting.reject(signal.reason);
    }
    this.look();
  }

  /** Something changed: admits the callers that may go now. */
  look(): void {
    this.close();
    if (this.#waiting.size === 0) return;
    const ms = this.#admission(this.#waiting);
    if (ms !== undefined && this.#waiting.size > 0) this.#cancel = this.#clock?.after(ms, () => this.look());
  }

  /** Leaves no timer behind. */
  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #join(waiting: Waiter<About, Turn>, signal: AbortSignal): void {
    const together = this.#leaving.get(signal);
    if (together) together.add(waiting);
    else {
      this.#leaving.set(signal, new Set([waiting]));
      signal.addEventListener('abort', this, { once: true });
    }
  }

  #leave(waiting: Waiter<About, Turn>, signal: AbortSignal): void {
    this.#waiting.delete(waiting);
    const together = this.#leaving.get(signal);
    together?.delete(waiting);
    if (together?.size !== 0) return;
    this.#leaving.delete(signal);
    signal.removeEventListener('abort', this);
  }
}
