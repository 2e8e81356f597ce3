import { Trigger } from '../async/trigger.ts';

/**
 * Notifies any number of readers which keys changed, each at its own pace; changes that a slow reader missed are
 * joined.
 */
export class Feed {
  #readers = new Set<{ pending: Set<string>; trigger: Trigger }>();

  publish(keys: Iterable<string>): void {
    const all = [...keys];
    for (const { pending, trigger } of this.#readers) {
      for (const key of all) pending.add(key);
      trigger.fire();
    }
  }

  /** Ends with the signal. `first` is yielded at once, if defined. */
  async *read(signal: AbortSignal, first: () => Iterable<string> | undefined): AsyncGenerator<ReadonlySet<string>> {
    const known = first();
    const reader = { pending: new Set(known), trigger: new Trigger() };
    if (known) reader.trigger.fire();
    this.#readers.add(reader);
    try {
      for (;;) {
        await reader.trigger.wait(signal);
        const keys = reader.pending;
        reader.pending = new Set();
        yield keys;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#readers.delete(reader);
    }
  }
}
