/** What to make of each value of a stream. */
export interface Mapping<A, B> {
  /** Undefined passes the value over. */
  read(value: A): B | undefined;
  /** Called once, at its end of whatever kind. */
  over?(): void;
}

/**
 * Another stream out of each value of one, but for one that is the very one right before. A generator would weigh three
 * times as much.
 */
export function mapped<A, B>(source: AsyncIterable<A>, mapping: Mapping<A, B>): AsyncIterableIterator<B, undefined> {
  return new Mapped(source, mapping);
}

class Mapped<A, B> implements AsyncIterableIterator<B, undefined> {
  readonly #values: AsyncIterator<A>;
  #mapping: Mapping<A, B> | undefined;
  #last: B | undefined;

  constructor(source: AsyncIterable<A>, mapping: Mapping<A, B>) {
    this.#values = source[Symbol.asyncIterator]();
    this.#mapping = mapping;
  }

  async next(): Promise<IteratorResult<B, undefined>> {
    try {
      while (this.#mapping) {
        const next = await this.#values.next();
        if (next.done) break;
        const value = this.#mapping?.read(next.value);
        const same = value === this.#last;
        this.#last = value;
        if (value !== undefined && !same) return { done: false, value };
      }
    } catch (error) {
      await this.return();
      throw error;
    }
    return this.return();
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    const mapping = this.#mapping;
    this.#mapping = undefined;
    mapping?.over?.();
    if (mapping) await this.#values.return?.();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
