import { setMaxListeners } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { type Clock, systemClock } from '../../src/async/clock.ts';
import { Changes } from '../../src/async/trigger.ts';
import { DEFAULT_ENV, type EmissaryEnv, type PodFiles } from '../../src/gateway/emissary/reading.ts';

import type { Kube } from '../../src/kube/api.ts';
import { type Log, silentLog } from '../../src/mesh/log.ts';
import { createHttpServer, listen } from '../tls/upstream.ts';
import { certs, diagnostics, metrics } from './admin.ts';
import { asEnvoySees, type Configuration, configure, EMPTY, reconfigure, refusal } from './configuration.ts';
import { type PoolEndpoint, UpstreamPool } from './pool.ts';
import { watchBatches } from './watching.ts';

export interface GatewayOptions {
  readonly kube: Kube;
  readonly env?: Partial<EmissaryEnv>;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly log?: Log;
  /** Where a service really listens; undefined: nowhere. Default: at its own address. */
  readonly resolve?: (host: string, port: number) => PoolEndpoint | undefined;
  /** After this many requests one uses a new connection, so that handshakes never stop. Default: never. */
  readonly freshEvery?: number;
  /** As in Emissary before 4.1: nothing but Envoy's admin interface shows the certificates that Envoy uses. */
  readonly hidesCertificates?: boolean;
}

export interface GatewayCounts {
  readonly complete: number;
  readonly incremental: number;
  /** Batches that validation discarded. */
  readonly refused: number;
  readonly requests: number;
  /** Requests that no upstream answered. */
  readonly failed: number;
}

export interface RunningGateway {
  /** The URL for clients. */
  readonly url: string;
  /** URL of the diagnostics: `<url>/ambassador/v0/diag/?json=true` and `<url>/metrics`. */
  readonly diagnosticsUrl: string;
  /** URL of Envoy's admin interface: `<url>/certs`. */
  readonly adminUrl: string;
  readonly counts: GatewayCounts;
  readonly configuration: Configuration;
  /** Why the last batch did not take effect, if it did not. */
  readonly refusal: string | undefined;
  readonly lastFailure: string | undefined;
  /** Resolves once the state fits; checked after each batch. */
  until(fits: (gateway: RunningGateway) => boolean, signal?: AbortSignal): Promise<void>;
  /**
   * Keeps updates from Envoy, as Emissary does for minutes when memory is short: the control plane reads everything, and
   * Envoy uses what it had. The last one arrives when this ends.
   */
  throttle(isThrottled: boolean): void;
  stop(): Promise<void>;
}

/** A gateway that reads Mappings, TLSContexts and Secrets as Emissary does, including its faults, and proxies HTTP. */
export async function startGateway(options: GatewayOptions): Promise<RunningGateway> {
  const gateway = new SandboxGateway(options);
  await gateway.start();
  return gateway;
}

/** Its pod mounts nothing. */
const NO_FILES: PodFiles = { files: new Map() };

class SandboxGateway implements RunningGateway {
  readonly #options: GatewayOptions;
  readonly #env: EmissaryEnv;
  readonly #clock: Clock;
  readonly #stopping = new AbortController();
  readonly #applied = new Changes();
  readonly #servers: Server[] = [];
  readonly #pools = new Map<string, UpstreamPool>();
  readonly counts = { complete: 0, incremental: 0, refused: 0, requests: 0, failed: 0 };
  configuration = EMPTY;
  /** What the control plane has sent to Envoy, whether it arrived or not. */
  #sent = EMPTY;
  #throttled = false;
  refusal: string | undefined;
  lastFailure: string | undefined;
  url = '';
  diagnosticsUrl = '';
  adminUrl = '';
  #running: Promise<void> = Promise.resolve();

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#env = { ...DEFAULT_ENV, ...options.env };
    this.#clock = options.clock ?? systemClock;
    // Five watches, each with several waits on it.
    setMaxListeners(0, this.#stopping.signal);
  }

  async start(): Promise<void> {
    this.url = await this.#serve((request, response) => this.#proxy(request, response));
    const loaded = () => [...this.#pools.values()].map(({ cluster }) => cluster);
    this.diagnosticsUrl = await this.#serve((request, response) => {
      if (request.url !== '/metrics')
        json(response, request.url?.startsWith('/ambassador/v0/diag/') ? diagnostics(this.#sent) : undefined);
      else response.end(this.#options.hidesCertificates ? '' : metrics(loaded()));
    });
    this.adminUrl = await this.#serve((request, response) =>
      json(response, request.url === '/certs' ? certs(loaded(), this.#clock.now()) : undefined),
    );
    const first = this.#applied.next(this.#stopping.signal);
    this.#running = this.#follow().catch((error) => {
      if (!this.#stopping.signal.aborted) throw error;
    });
    await Promise.race([first, this.#running]);
  }

  until(fits: (gateway: RunningGateway) => boolean, signal = this.#stopping.signal): Promise<void> {
    return this.#applied.until(() => fits(this), signal);
  }

  throttle(isThrottled: boolean): void {
    this.#throttled = isThrottled;
    if (isThrottled) return;
    this.#apply(this.#sent);
    this.#applied.announce();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the gateway stops'));
    await this.#running;
    for (const pool of this.#pools.values()) pool.destroy();
    for (const server of this.#servers) {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    }
  }

  async #follow(): Promise<void> {
    const { kube, random = Math.random, log = silentLog } = this.#options;
    const watching = { clock: this.#clock, random, log, signal: this.#stopping.signal };
    for await (const { snapshot, changedMappings } of watchBatches(kube, this.#env.batchMs, watching)) {
      const fresh = configure(snapshot, this.#env, NO_FILES);
      const next = reconfigure(this.#sent, fresh, changedMappings);
      this.refusal = refusal(next);
      if (this.refusal !== undefined) this.counts.refused++;
      else {
        this.counts[changedMappings.size > 0 ? 'incremental' : 'complete']++;
        this.#sent = next;
        if (!this.#throttled) this.#apply(next);
      }
      this.#applied.announce();
    }
  }

  #apply(next: Configuration): void {
    for (const [name, cluster] of next.clusters) {
      const pool = this.#pools.get(name);
      if (pool?.key === asEnvoySees(cluster)) continue;
      this.#pools.set(name, new UpstreamPool(cluster));
      pool?.retire();
    }
    for (const [name, pool] of this.#pools) {
      if (next.clusters.has(name)) continue;
      this.#pools.delete(name);
      pool.retire();
    }
    this.configuration = next;
  }

  #proxy(request: IncomingMessage, response: ServerResponse): void {
    this.counts.requests++;
    const path = request.url ?? '/';
    const route = this.configuration.routes.find(({ prefix }) => path.startsWith(prefix));
    const pool = route && this.#pools.get(route.cluster);
    if (!route || !pool) {
      response.writeHead(404).end();
      return;
    }
    const { host, port } = pool.cluster;
    const endpoint = this.#options.resolve ? this.#options.resolve(host, port) : { host, port };
    if (!endpoint) {
      this.#unavailable(response, `${host}:${port} is not known`);
      return;
    }

    const { freshEvery = 0 } = this.#options;
    const fresh = freshEvery > 0 && this.counts.requests % freshEvery === 0;
    const { connection: _, ...headers } = request.headers;
    const target = `/${route.rewrite}/${path.slice(route.prefix.length)}`.replace(/\/+/g, '/');
    const sent = pool.send(endpoint, { method: request.method, path: target, headers }, fresh, (answer) => {
      const { connection: __, 'keep-alive': ___, ...back } = answer.headers;
      response.writeHead(answer.statusCode ?? 502, back);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    sent.on('error', (error) => this.#unavailable(response, `${route.cluster}: ${error.message}`));
    request.pipe(sent);
  }

  #unavailable(response: ServerResponse, reason: string): void {
    this.counts.failed++;
    this.lastFailure = reason;
    if (response.headersSent) response.destroy();
    else response.writeHead(503, { 'content-type': 'text/plain' }).end(`upstream connect error: ${reason}`);
  }

  async #serve(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
    const server = createHttpServer(handle);
    this.#servers.push(server);
    return `http://127.0.0.1:${await listen(server)}`;
  }
}

function json(response: ServerResponse, body: object | undefined): void {
  if (!body) response.writeHead(404).end();
  else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
