import { isDeepStrictEqual } from 'node:util';

/** What was made of the last input, for many who ask about the same one. */
export class LastRead<A, B> implements Disposable {
  #last: { readonly input: A; readonly made: B } | undefined;

  /** The very same value while the input is the same. What `make` throws is not remembered. */
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
