import { mapStream, type StreamTransform } from '../../src/async/map-stream.ts';
import { asError } from '../../src/async/retrying.ts';
import { type SharedHandle, sharing } from '../../src/async/sharing.ts';
import type { ConfigMapRef, Host } from '../../src/mesh/adapter.ts';
import { LastRead } from '../../src/mesh/last-read.ts';
import type { LinkerdConfig } from './config.ts';

type Data = Readonly<Record<string, string>> | undefined;

/** How one ConfigMap of Linkerd's is read. */
export interface ObjectReader<T> {
  readonly ref: (config: LinkerdConfig) => ConfigMapRef;
  /** The parts of the configuration that affect the result. */
  readonly decidedBy: (config: LinkerdConfig) => readonly (string | undefined)[];
  /** Throws for data that it cannot use. */
  readonly read: (config: LinkerdConfig, data: Data) => T;
}

/**
 * A ConfigMap through a reader. While it is watched, the last valid value is remembered and an invalid one is reported;
 * otherwise each call reads it again. A ConfigMap with many watchers is read once.
 */
export class WatchedConfigMap<T> implements StreamTransform<Data, T> {
  readonly #host: Pick<Host, 'configMap' | 'report' | 'share'>;
  readonly #config: LinkerdConfig;
  readonly #reader: ObjectReader<T>;
  /** Set while it is watched. */
  #read: SharedHandle<LastRead<Data, T>> | undefined;
  #latest: { readonly value: T } | undefined;

  constructor(host: Pick<Host, 'configMap' | 'report' | 'share'>, config: LinkerdConfig, reader: ObjectReader<T>) {
    this.#host = host;
    this.#config = config;
    this.#reader = reader;
  }

  async current(signal: AbortSignal): Promise<T> {
    if (this.#latest) return this.#latest.value;
    for await (const data of this.#data(signal)) return this.#reader.read(this.#config, data);
    signal.throwIfAborted();
    throw new TypeError('a watched ConfigMap has a state');
  }

  changes(signal: AbortSignal): AsyncIterable<T> {
    return mapStream(this.#data(signal), this);
  }

  read(data: Data): T | undefined {
    this.#read ??= (this.#host.share ?? sharing())(this.#key, () => new LastRead());
    try {
      const value = this.#read.value.read(data, () => this.#reader.read(this.#config, data));
      if (this.#latest?.value !== value) this.#latest = { value };
      return value;
    } catch (error) {
      this.#host.report(asError(error));
      return undefined;
    }
  }

  over(): void {
    this.#read?.[Symbol.dispose]();
    this.#read = undefined;
    this.#latest = undefined;
  }

  get #key(): string {
    const { namespace, name } = this.#reader.ref(this.#config);
    return `linkerd ConfigMap ${JSON.stringify([namespace, name, ...this.#reader.decidedBy(this.#config)])}`;
  }

  #data(signal: AbortSignal): AsyncIterable<Data> {
    return this.#host.configMap(this.#reader.ref(this.#config), signal);
  }
}
