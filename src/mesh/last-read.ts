import { isDeepStrictEqual } from 'node:util';

/** The result for the last input, shared by many callers with the same one. */
export class LastRead<A, B> implements Disposable {
  #last: { readonly input: A; readonly made: B } | undefined;

  /** Returns the identical value while the input is the same. An error from `make` is not remembered. */
  read(input: A, make: (input: A) => B): B {
    if (this.#last && isDeepStrictEqual(this.#last.input, input)) return this.#last.made;
    const made = make(input);
    this.#last = { input, made };
    return made;
  }

  [Symbol.dispose](): void {
    this.#last = undefined;
  }
}
