/** How to transform each value of a stream. */
export interface StreamTransform<A, B> {
  /** Undefined skips the value. */
  read(value: A): B | undefined;
  /** Called once, however the stream ends. */
  over?(): void;
}

/** Yields the transformed value for each value of a stream, unless it is identical to the previous one. */
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
