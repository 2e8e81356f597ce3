import type { ConfigMapRef, Host } from '../../src/mesh/adapter.ts';

type Data = Readonly<Record<string, string>> | undefined;

/**
 * A ConfigMap through a reader that throws on what it cannot use. While somebody watches, the last good value is
 * remembered and a bad one is reported; otherwise each question looks anew.
 */
export class WatchedConfigMap<T> {
  readonly #host: Pick<Host, 'configMap' | 'report'>;
  readonly #ref: ConfigMapRef;
  readonly #read: (data: Data) => T;
  #watchers = 0;
  #latest: { readonly value: T } | undefined;

  constructor(host: Pick<Host, 'configMap' | 'report'>, ref: ConfigMapRef, read: (data: Data) => T) {
    this.#host = host;
    this.#ref = ref;
    this.#read = read;
  }

  async current(signal: AbortSignal): Promise<T> {
    if (this.#latest) return this.#latest.value;
    for await (const data of this.#host.configMap(this.#ref, signal)) return this.#read(data);
    signal.throwIfAborted();
    throw new TypeError('a watched ConfigMap has a state');
  }

  async *changes(signal: AbortSignal): AsyncGenerator<T> {
    this.#watchers++;
    let last: string | undefined;
    try {
      for await (const data of this.#host.configMap(this.#ref, signal)) {
        const text = JSON.stringify(data ?? null);
        if (text === last) continue;
        last = text;
        try {
          this.#latest = { value: this.#read(data) };
        } catch (error) {
          this.#host.report(error instanceof Error ? error : new Error(String(error)));
          continue;
        }
        yield this.#latest.value;
      }
    } finally {
      this.#watchers--;
      if (this.#watchers === 0) this.#latest = undefined;
    }
  }
}
