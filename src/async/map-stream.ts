/** What to make of each value of a stream. */
export interface StreamTransform<A, B> {
  /** Undefined passes the value over. */
  read(value: A): B | undefined;
  /** Called once, at its end of whatever kind. */
  over?(): void;
}

/**
 * Another stream out of each value of one, but for one that is the very one right before. A generator would weigh three
 * times as much.
 */
export function mapStream<A, B>(
  source: AsyncIterable<A>,
  transform: StreamTransform<A, B>,
): AsyncIterableIterator<B, undefined> {
  return new MappedStream(source, transform);
}

class MappedStream<A, B> implements AsyncIterableIterator<B, undefined> {
  readonly #values: AsyncIterator<A>;
  #transform: StreamTransform<A, B> | undefined;
  #last: B | undefined;

  constructor(source: AsyncIterable<A>, transform: StreamTransform<A, B>) {
    this.#values = source[Symbol.asyncIterator]();
    this.#transform = transform;
  }

  next(): Promise<IteratorResult<B, undefined>> {
    if (!this.#transform) return this.return();
    return this.#values.next().then(
      (next) => this.#take(next),
      (error) => this.#fail(error),
    );
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    const transform = this.#transform;
    this.#transform = undefined;
    transform?.over?.();
    if (transform) await this.#values.return?.();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #take(next: IteratorResult<A>): IteratorResult<B, undefined> | Promise<IteratorResult<B, undefined>> {
    if (next.done || !this.#transform) return this.return();
    try {
      const value = this.#transform.read(next.value);
      const same = value === this.#last;
      this.#last = value;
      return value === undefined || same ? this.next() : { done: false, value };
    } catch (error) {
      return this.#fail(error);
    }
  }

  async #fail(error: unknown): Promise<never> {
    await this.return();
    throw error;
  }
}
