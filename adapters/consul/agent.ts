import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { BlockingQuery } from './blocking.ts';
import type { ConsulConfig } from './config.ts';
import { ConsulHttp, type HttpAnswer, type HttpRequest } from './http.ts';
import { HttpLogin } from './http-login.ts';
import { type ConsulTokens, openTokens } from './tokens.ts';

/** Lower bound even when the token is about to be replaced; the loop would spin otherwise. */
const SHORTEST_WAIT_MS = 5_000;

/** An agent's HTTP API with our token: the two Connect paths, read at once or by blocking query. */
export class ConsulAgent implements AsyncDisposable {
  readonly http: ConsulHttp;
  readonly tokens: ConsulTokens;
  readonly #config: ConsulConfig;
  readonly #host: Host;

  constructor(config: ConsulConfig & { http: NonNullable<ConsulConfig['http']> }, host: Host) {
    this.#config = config;
    this.#host = host;
    this.http = new ConsulHttp(config.http, host);
    this.tokens = openTokens(config, host, new HttpLogin(this.http, host));
  }

  get rootsName(): string {
    return `Consul at ${this.http.address}: roots`;
  }

  get leafName(): string {
    return `Consul at ${this.http.address}: leaf of ${this.#config.service}`;
  }

  roots(): BlockingQuery {
    return this.#query('/v1/agent/connect/ca/roots', { dc: this.#config.datacenter });
  }

  leaf(): BlockingQuery {
    const { service, datacenter, namespace, partition } = this.#config;
    const path = `/v1/agent/connect/ca/leaf/${encodeURIComponent(service)}`;
    return this.#query(path, { dc: datacenter, ns: namespace, partition });
  }

  /** Sends our token, and once more with a new one when Consul no longer knows it. */
  async authorised(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    for (let again = false; ; again = true) {
      const token = await this.tokens.get(signal);
      try {
        return await this.http.request({ ...request, token }, signal);
      } catch (error) {
        const unknown = error instanceof MeshError && error.code === 'ERR_MESH_TOKEN';
        if (!unknown || again || !this.tokens.rejected(token)) throw error;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tokens[Symbol.asyncDispose]();
    this.http.close();
  }

  #query(path: string, query: Readonly<Record<string, string | undefined>>): BlockingQuery {
    return new BlockingQuery((ask, signal) => {
      return this.authorised({ path, query: { ...query, ...ask.query }, timeoutMs: ask.timeoutMs }, signal);
    }, this.#host.clock);
  }

  /** The longest time that a request may block so that its token is still valid when it is answered. */
  patience(waitMs: number): number {
    const { goodUntil } = this.tokens;
    if (goodUntil === undefined || !Number.isFinite(goodUntil)) return waitMs;
    return Math.min(waitMs, Math.max(goodUntil - this.#host.clock.now(), SHORTEST_WAIT_MS));
  }
}
