export interface KeyedQueueOptions<K> {
  readonly run: (key: K) => Promise<void>;
  /** Most runs at a time over all keys; default no limit. */
  readonly concurrency?: number;
  /** Of a run that threw; the queue goes on. */
  readonly onError: (error: unknown, key: K) => void;
}

/** One run a key at a time. Whatever is added while a key waits or runs collapses into one more run. */
export class KeyedQueue<K> {
  readonly #options: KeyedQueueOptions<K>;
  readonly #waiting = new Set<K>();
  readonly #running = new Set<K>();
  readonly #idle = new Set<() => void>();

  constructor(options: KeyedQueueOptions<K>) {
    this.#options = options;
  }

  /** Keys that wait, not counting those that run. */
  get length(): number {
    return this.#waiting.size;
  }

  add(key: K): void {
    this.#waiting.add(key);
    this.#start();
  }

  /** Resolves when nothing waits or runs. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.add(resolve);
      this.#settle();
    });
  }

  #start(): void {
    for (const key of this.#waiting) {
      if (this.#running.size >= (this.#options.concurrency ?? Number.POSITIVE_INFINITY)) return;
      if (this.#running.has(key)) continue;
      this.#waiting.delete(key);
      this.#running.add(key);
      void this.#runOne(key);
    }
  }

  async #runOne(key: K): Promise<void> {
    try {
      await this.#options.run(key);
    } catch (error) {
      this.#options.onError(error, key);
    } finally {
      this.#running.delete(key);
      this.#start();
      this.#settle();
    }
  }

  #settle(): void {
    if (this.#waiting.size + this.#running.size > 0) return;
    for (const resolve of this.#idle) resolve();
    this.#idle.clear();
  }
}
