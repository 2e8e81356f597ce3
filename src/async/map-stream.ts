/** What to make of each value of a stream. */
export interface StreamTransform<A, B> {
  /** Undefined passes the value over. */
  read(value: A): B | undefined;
  /** Called once, at its end of whatever kind. */
  over?(): void;
}

/** Yields what each value of a stream is read as, unless that is the very value yielded right before. */
export async function* mapStream<A, B>(
  source: AsyncIterable<A>,
  transform: StreamTransform<A, B>,
): AsyncGenerator<B, undefined> {
  let last: B | undefined;
  try {
    for await (const value of source) {
      const next = transform.read(value);
      const same = next === last;
      last = next;
      if (next !== undefined && !same) yield next;
    }
  } finally {
    transform.over?.();
  }
}
