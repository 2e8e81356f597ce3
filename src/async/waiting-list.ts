import type { Clock } from './clock.ts';

/** One waiting caller. */
export interface Waiting<About, Turn> {
  readonly about: About;
  /** Ends the wait with this turn. */
  admit(turn: Turn): void;
}

/**
 * Admits the callers that may go now, in order of arrival. Returns in how many milliseconds to call it again, if the
 * passing of time alone will admit others.
 */
type Admission<About, Turn> = (waiting: Iterable<Waiting<About, Turn>>) => number | undefined;

/** Callers that wait until they are admitted. A caller whose signal is aborted leaves. */
export class WaitingList<About, Turn> {
  readonly #waiting = new Set<Waiting<About, Turn>>();
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
      const leave = () => {
        this.#waiting.delete(waiting);
        signal.removeEventListener('abort', abort);
      };
      const abort = () => {
        leave();
        reject(signal.reason);
        this.look();
      };
      const waiting: Waiting<About, Turn> = {
        about,
        admit(turn) {
          leave();
          resolve(turn);
        },
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.add(waiting);
      this.look();
    });
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
}
