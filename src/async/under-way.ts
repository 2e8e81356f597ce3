import { type LinkedSignal, linkedTo } from './linked-signal.ts';

/** The work in progress of an owner, which ends with the owner. */
export class UnderWay {
  readonly #all = new Set<LinkedSignal>();
  #end: { readonly reason: unknown } | undefined;

  /** A signal for one piece of work, aborted with the caller's and by `end`; dispose of it when the work is done. */
  begin(caller?: AbortSignal): LinkedSignal {
    const linked = linkedTo(caller);
    if (this.#end) linked.abort(this.#end.reason);
    const work: LinkedSignal = {
      signal: linked.signal,
      abort: linked.abort,
      [Symbol.dispose]: () => {
        linked[Symbol.dispose]();
        this.#all.delete(work);
      },
    };
    this.#all.add(work);
    return work;
  }

  /** Aborts all work in progress and all that begins later. */
  end(reason: unknown): void {
    this.#end ??= { reason };
    for (const work of [...this.#all]) work.abort(reason);
  }
}
