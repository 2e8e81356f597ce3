/** What to make of each value of a stream. */
export interface StreamTransform<A, B> {
  /** Undefined passes the value over. */
  read(value: A): B | undefined;
  /** Called once, at its end of whatever kind. */
  over?(): void;
}

/** Another stream out of each value of one, but for one that is the very one right before. */
export async function* mapStream<A, B>(
  source: AsyncIterable<A>,
  transform: StreamTransform<A, B>,
): AsyncGenerator<B, undefined> {
  let last: B | undefined;
  try {
    for await (const one of source) {
      const value = transform.read(one);
      const isNews = value !== undefined && value !== last;
      last = value;
      if (isNews) yield value;
    }
  } finally {
    transform.over?.();
  }
}
