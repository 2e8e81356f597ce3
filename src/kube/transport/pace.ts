import type { Clock } from '../../async/clock.ts';
import { once } from '../../async/once.ts';
import { type Waiting, WaitingList } from '../../async/waiting-list.ts';
import { answered, type Concurrency, startingConcurrency } from '../../core/concurrency.ts';

export interface PaceOptions {
  readonly clock: Clock;
  /** Limit on concurrent writes when the API server does not ask for less. */
  readonly most: number;
  /** Called with the limit whenever it changes, and initially. */
  readonly limited?: ((limit: number) => void) | undefined;
}

export interface Turn extends Disposable {
  /** Records a response by its status; 0 when there was none. */
  answered(status: number, retryAfterMs: number | undefined): void;
}

/** Delays requests as the API server asks: writes by a limit that adapts, and all of them for `Retry-After`. */
export class Pace {
  readonly #options: PaceOptions;
  /** Apart, so that what ends does not look at all writes that wait: there may be thousands. */
  readonly #reads: WaitingList<undefined, Turn>;
  readonly #writes: WaitingList<undefined, Turn>;
  #state: Concurrency;
  #underWay = 0;

  constructor(options: PaceOptions) {
    this.#options = options;
    this.#reads = new WaitingList((waiting) => this.#admit(false, waiting), options.clock);
    this.#writes = new WaitingList((waiting) => this.#admit(true, waiting), options.clock);
    this.#state = startingConcurrency(options.most);
    options.limited?.(Math.floor(this.#state.limit));
  }

  /** A turn if the request may be sent now. Dispose it when the request is over. */
  takeNow(isWrite: boolean): Turn | undefined {
    return this.#leftMs > 0 || this.#isFull(isWrite) ? undefined : this.#turn(isWrite);
  }

  /** Resolves when the request may be sent, in order of arrival among reads or writes; rejects with the signal's reason. */
  take(isWrite: boolean, signal: AbortSignal): Promise<Turn> {
    return (isWrite ? this.#writes : this.#reads).join(undefined, signal);
  }

  /** Leaves no timer behind. */
  close(): void {
    this.#reads.close();
    this.#writes.close();
  }

  #turn(isWrite: boolean): Turn {
    const { clock, most, limited } = this.#options;
    const sentAt = clock.monotonic();
    if (isWrite) this.#underWay += 1;
    const ended = once(() => {
      if (isWrite) this.#underWay -= 1;
      this.#reads.look();
      this.#writes.look();
    });
    return {
      answered: (status, retryAfterMs) => {
        const isBusy = status === 429 || (status === 503 && retryAfterMs !== undefined);
        if (!isWrite && !isBusy) return;
        const before = this.#state.limit;
        const answer = { sentAt, now: clock.monotonic(), status, retryAfterMs, underWay: this.#underWay };
        this.#state = answered(this.#state, answer, most);
        if (Math.floor(this.#state.limit) !== Math.floor(before)) limited?.(Math.floor(this.#state.limit));
      },
      [Symbol.dispose]: () => ended[Symbol.dispose](),
    };
  }

  get #leftMs(): number {
    return this.#state.heldUntil - this.#options.clock.monotonic();
  }

  #isFull(isWrite: boolean): boolean {
    return isWrite && this.#underWay >= Math.floor(this.#state.limit);
  }

  #admit(isWrite: boolean, waiting: Iterable<Waiting<undefined, Turn>>): number | undefined {
    if (this.#leftMs > 0) return this.#leftMs;
    for (const { admit } of waiting) {
      if (this.#isFull(isWrite)) break;
      admit(this.#turn(isWrite));
    }
    return undefined;
  }
}
