import { type LinkedSignal, linkedTo } from './linked-signal.ts';

/** What an owner has under way, which ends with the owner. Nothing is held while nothing is. */
export class UnderWay {
  #all: Set<LinkedSignal> | undefined;
  #end: { readonly reason: unknown } | undefined;

  /** A signal for one piece of work, aborted with the caller's and by `end`; dispose of it when the work is done. */
  begin(caller?: AbortSignal): LinkedSignal {
    const linked = linkedTo(caller);
    if (this.#end) linked.abort(this.#end.reason);
    this.#all ??= new Set();
    const all = this.#all;
    const work: LinkedSignal = {
      signal: linked.signal,
      abort: linked.abort,
      [Symbol.dispose]: () => {
        linked[Symbol.dispose]();
        all.delete(work);
        if (all.size === 0 && this.#all === all) this.#all = undefined;
      },
    };
    all.add(work);
    return work;
  }

  /** Aborts all that is under way and all that begins later. */
  end(reason: unknown): void {
    this.#end ??= { reason };
    for (const work of [...(this.#all ?? [])]) work.abort(reason);
  }
}
