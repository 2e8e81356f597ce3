import { type Channel, openChannel } from '../../src/grpc/channel.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import { apiCa } from './ca.ts';
import type { GrpcConfig } from './config.ts';
import { grpcError, type Row } from './errors.ts';
import { resolveServers, type Server } from './protocol/resolve.ts';

/** Servers allow a ping each 15 s and none without a stream. */
const KEEPALIVE = { timeMs: 30_000, timeoutMs: 30_000, idle: false };

export interface ServerCall {
  readonly channel: Channel;
  readonly server: Server;
}

/** Several servers of one cluster, one at a time; the next one when this one is down or has no capacity. */
export class Servers {
  readonly #config: GrpcConfig;
  readonly #host: Host;
  readonly #channels = new Map<string, { readonly channel: Channel; readonly ca: string | undefined }>();
  /** Empty: names are resolved at the next call. */
  #servers: readonly Server[] = [];
  #at = 0;

  constructor(config: GrpcConfig, host: Host) {
    this.#config = config;
    this.#host = host;
  }

  /** Rejects with a MeshError about the last server tried; `first` has the meanings of statuses for this call only. */
  async call<T>(
    what: string,
    signal: AbortSignal,
    work: (called: ServerCall) => Promise<T>,
    first: readonly Row[] = [],
  ): Promise<T> {
    const servers = await this.#known(signal);
    for (let tried = 1; ; tried++) {
      const server = servers[this.#at % servers.length];
      if (!server) throw new TypeError('there is always a server');
      try {
        return await work({ server, channel: await this.#channel(server, signal) });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof GrpcError)) throw error;
        if (error.reach !== 'answered') this.#drop(server);
        const elsewhere = error.status === grpcStatus.UNAVAILABLE || error.status === grpcStatus.RESOURCE_EXHAUSTED;
        if (elsewhere) this.#leave(server, servers);
        if (elsewhere && tried < servers.length) continue;
        throw grpcError(`Consul server ${server.name}: ${what}`, error, first);
      }
    }
  }

  /**
   * The meaning of a later failure of a stream from this server; the next call uses another server if this one is down.
   */
  async explain<T>(server: Server, what: string, answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof GrpcError)) throw error;
      if (error.status === grpcStatus.UNAVAILABLE) {
        this.#leave(server, this.#servers);
        this.#servers = [];
      }
      throw grpcError(`Consul server ${server.name}: ${what}`, error);
    }
  }

  close(): void {
    for (const { channel } of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  async #known(signal: AbortSignal): Promise<readonly Server[]> {
    if (this.#servers.length > 0) return this.#servers;
    const servers = await resolveServers(this.#config.addresses, this.#config.tls?.serverName, signal);
    this.#servers = servers;
    return servers;
  }

  async #channel({ address, serverName }: Server, signal: AbortSignal): Promise<Channel> {
    const { plaintext, tls } = this.#config;
    const ca = plaintext ? undefined : await apiCa(tls, this.#host, signal);
    const known = this.#channels.get(address);
    if (known && known.ca === ca) return known.channel;
    known?.channel.close();
    const channel = openChannel({
      address,
      keepalive: KEEPALIVE,
      tls: ca === undefined ? 'plaintext' : { ca, serverName },
    });
    this.#channels.set(address, { channel, ca });
    return channel;
  }

  /** Unless another call has already moved on to the next one. */
  #leave(server: Server, servers: readonly Server[]): void {
    if (servers[this.#at % Math.max(1, servers.length)] === server) this.#at += 1;
  }

  /** No connection was established: the next use makes a new one without its back-off, to the then resolved address. */
  #drop({ address }: Server): void {
    this.#channels.get(address)?.channel.close();
    this.#channels.delete(address);
    this.#servers = [];
  }
}
