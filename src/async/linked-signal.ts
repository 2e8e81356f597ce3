import { setMaxListeners } from 'node:events';
import type { Clock } from './clock.ts';

/**
 * Follows its parents until disposed of. It leaves nothing behind, unlike `AbortSignal.any`: a long-lived parent
 * remembers each of those forever.
 */
export interface LinkedSignal extends Disposable {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
}

export function linkedTo(...parents: readonly (AbortSignal | undefined)[]): LinkedSignal {
  return new Linked(parents);
}

/** The same, aborted with the result of `late` when it was not disposed of within `ms`. */
export function limitedTo(
  clock: Pick<Clock, 'after'>,
  ms: number,
  late: () => Error,
  ...parents: readonly (AbortSignal | undefined)[]
): LinkedSignal {
  const linked = linkedTo(...parents);
  const cancel = clock.after(ms, () => linked.abort(late()));
  return {
    signal: linked.signal,
    abort: linked.abort,
    [Symbol.dispose]: () => {
      cancel();
      linked[Symbol.dispose]();
    },
  };
}

class Linked implements LinkedSignal {
  readonly #controller = new AbortController();
  readonly abort = (reason?: unknown): void => this.#controller.abort(reason);
  readonly #parents: readonly (AbortSignal | undefined)[];

  constructor(parents: readonly (AbortSignal | undefined)[]) {
    this.#parents = parents;
    const aborted = parents.find((parent) => parent?.aborted);
    if (aborted) this.abort(aborted.reason);
    else for (const parent of parents) if (parent) this.#follow(parent);
  }

  #follow(parent: AbortSignal): void {
    // There are as many listeners as concurrent waits; each removes its own.
    setMaxListeners(0, parent);
    parent.addEventListener('abort', this, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  handleEvent({ target }: Event): void {
    this.abort((target as AbortSignal).reason);
  }

  [Symbol.dispose](): void {
    for (const parent of this.#parents) parent?.removeEventListener('abort', this);
  }
}

/** The outcome of the work, or the signal's reason as soon as it is aborted. What the work does later is ignored. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** Something that ends when it is first disposed. */
export function once(end: () => void): Disposable {
  let open = true;
  return {
    [Symbol.dispose]: () => {
      if (!open) return;
      open = false;
      end();
    },
  };
}
