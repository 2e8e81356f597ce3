import { once } from './once.ts';

/** So many at a time, in the order in which they came. */
export class Semaphore {
  readonly #waiting = new Set<() => void>();
  #free: number;

  constructor(atOnce: number) {
    this.#free = atOnce;
  }

  /** Resolves to a turn, which ends when it is disposed; rejects with the signal's reason. */
  take(signal: AbortSignal): Promise<Disposable> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const abort = () => {
        this.#waiting.delete(admit);
        reject(signal.reason);
      };
      const admit = () => {
        signal.removeEventListener('abort', abort);
        this.#free -= 1;
        resolve(this.#turn());
      };
      if (this.#free > 0) return admit();
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.add(admit);
    });
  }

  #turn(): Disposable {
    return once(() => {
      this.#free += 1;
      const [next] = this.#waiting;
      if (!next) return;
      this.#waiting.delete(next);
      next();
    });
  }
}
