import { once } from './once.ts';
import { WaitingList } from './waiting-list.ts';

/** Limits concurrency, in order of arrival. */
export class Semaphore {
  readonly #waiting = new WaitingList<undefined, Disposable>((waiting) => {
    for (const { admit } of waiting) {
      if (this.#free === 0) break;
      this.#free -= 1;
      admit(this.#turn());
    }
    return undefined;
  });
  #free: number;

  constructor(atOnce: number) {
    this.#free = atOnce;
  }

  /** Resolves to a turn, which ends when it is disposed; rejects with the signal's reason. */
  take(signal: AbortSignal): Promise<Disposable> {
    return this.#waiting.join(undefined, signal);
  }

  #turn(): Disposable {
    return once(() => {
      this.#free += 1;
      this.#waiting.look();
    });
  }
}
