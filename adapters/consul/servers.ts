import { type Channel, openChannel } from '../../src/grpc/channel.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import { apiCa } from './ca.ts';
import type { GrpcConfig } from './config.ts';
import { grpcError, type Row } from './errors.ts';

/** Servers allow a ping each 15 s and none without a stream. */
const KEEPALIVE = { timeMs: 30_000, timeoutMs: 30_000, idle: false };

export interface Called {
  readonly channel: Channel;
  readonly address: string;
}

/** Several servers of one cluster, one at a time; the next one when this one is away or has no capacity. */
export class Servers {
  readonly #config: GrpcConfig;
  readonly #host: Host;
  readonly #channels = new Map<string, { readonly channel: Channel; readonly ca: string | undefined }>();
  #at = 0;

  constructor(config: GrpcConfig, host: Host) {
    this.#config = config;
    this.#host = host;
  }

  /** Rejects with a MeshError about the last server tried; `first` holds what statuses mean for this call alone. */
  async call<T>(
    what: string,
    signal: AbortSignal,
    work: (server: Called) => Promise<T>,
    first: readonly Row[] = [],
  ): Promise<T> {
    for (let tried = 1; ; tried++) {
      const address = this.#config.addresses[this.#at] ?? '';
      try {
        return await work({ address, channel: await this.#channel(address, signal) });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof GrpcError)) throw error;
        const elsewhere = error.status === grpcStatus.UNAVAILABLE || error.status === grpcStatus.RESOURCE_EXHAUSTED;
        if (error.reach !== 'answered') this.#drop(address);
        if (elsewhere) this.#advance(address);
        if (elsewhere && tried < this.#config.addresses.length) continue;
        throw grpcError(`Consul server ${address}: ${what}`, error, first);
      }
    }
  }

  /** What a later failure of a stream from this server means; the next call goes to another one if it is away. */
  async explain<T>(address: string, what: string, answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof GrpcError)) throw error;
      if (error.status === grpcStatus.UNAVAILABLE) this.#advance(address);
      throw grpcError(`Consul server ${address}: ${what}`, error);
    }
  }

  close(): void {
    for (const address of [...this.#channels.keys()]) this.#drop(address);
  }

  async #channel(address: string, signal: AbortSignal): Promise<Channel> {
    const { plaintext, tls } = this.#config;
    const ca = plaintext ? undefined : await apiCa(tls, this.#host, signal);
    const known = this.#channels.get(address);
    if (known && known.ca === ca) return known.channel;
    this.#drop(address);
    const channel = openChannel({
      address,
      keepalive: KEEPALIVE,
      ...(ca === undefined ? {} : { tls: { ca, serverName: tls?.serverName } }),
    });
    this.#channels.set(address, { channel, ca });
    return channel;
  }

  #advance(address: string): void {
    const { addresses } = this.#config;
    if (addresses[this.#at] === address) this.#at = (this.#at + 1) % addresses.length;
  }

  /** A new connection is made at the next use, so that no back-off of an old one stands in the way. */
  #drop(address: string): void {
    this.#channels.get(address)?.channel.close();
    this.#channels.delete(address);
  }
}
