import {
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { type ConnectionOptions, createSecureContext, type PeerCertificate } from 'node:tls';
import type { Clock } from '../../src/async/clock.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { firstOfEachAuthority, type PoolEndpoint, UpstreamConnections } from '../emissary/pool.ts';
import { createHttpServer, listen } from '../tls/upstream.ts';
import type { ProxyCluster, ProxyConfiguration, ProxyRoute, ProxySecret } from './translation.ts';

export interface GatewayProxyOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Where a Service really listens; undefined: nowhere. */
  readonly resolve: (host: string, port: number) => PoolEndpoint | undefined;
  /** How long a changed cluster waits while the old one serves. */
  readonly warmingMs: number;
  /** After this many requests one uses a new connection; 0: never. */
  readonly freshEvery: number;
}

interface ProxyUpstream {
  readonly cluster: ProxyCluster;
  readonly connections: UpstreamConnections;
}

/**
 * The proxy of one Gateway, as Envoy behaves under Envoy Gateway: secrets are followed by new connections alone, one
 * that does not load is refused and the old one kept, and a changed cluster waits while the old one serves.
 */
export class GatewayProxy {
  #requests = 0;
  url = '';
  readonly #options: GatewayProxyOptions;
  readonly #secrets = new Map<string, ProxySecret>();
  readonly #upstreams = new Map<string, ProxyUpstream>();
  #routes: readonly ProxyRoute[] = [];
  readonly #server: Server;

  constructor(options: GatewayProxyOptions) {
    this.#options = options;
    this.#server = createHttpServer((request, response) => this.#proxy(request, response));
  }

  async start(): Promise<void> {
    this.url = `http://127.0.0.1:${await listen(this.#server)}`;
  }

  apply({ routes, secrets }: ProxyConfiguration): void {
    for (const [name, secret] of secrets) {
      if (loads(secret)) this.#secrets.set(name, secret);
    }
    const wanted = new Map(routes.flatMap(({ cluster }) => (cluster ? [[cluster.name, cluster]] : [])));
    for (const [name, cluster] of wanted) this.#follow(name, cluster);
    for (const [name, { connections }] of this.#upstreams) {
      if (wanted.has(name)) continue;
      connections.retire();
      this.#upstreams.delete(name);
    }
    this.#routes = routes;
  }

  async stop(): Promise<void> {
    for (const { connections } of this.#upstreams.values()) connections.agent.destroy();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  /** What it connects to. */
  get clusters(): readonly ProxyCluster[] {
    return [...this.#upstreams.values()].map(({ cluster }) => cluster);
  }

  #follow(name: string, cluster: ProxyCluster): void {
    const known = this.#upstreams.get(name);
    const isSame = known && JSON.stringify(known.cluster) === JSON.stringify(cluster);
    if (isSame) return;
    // A first policy, and the deletion of one, act at once.
    if (!known || (known.cluster.tls === undefined) !== (cluster.tls === undefined)) {
      this.#replace(name, cluster);
      return;
    }
    const { clock, warmingMs, signal } = this.#options;
    clock.sleep(warmingMs, signal).then(
      () => {
        const route = this.#routes.find((one) => one.cluster?.name === name);
        if (route?.cluster && JSON.stringify(route.cluster) === JSON.stringify(cluster)) this.#replace(name, cluster);
      },
      () => {},
    );
  }

  #replace(name: string, cluster: ProxyCluster): void {
    this.#upstreams.get(name)?.connections.retire();
    this.#upstreams.set(name, { cluster, connections: new UpstreamConnections(agentFor(cluster)) });
  }

  #proxy(request: IncomingMessage, response: ServerResponse): void {
    this.#requests++;
    const path = request.url ?? '/';
    const route = this.#routes.find(({ prefix }) => path === prefix || path.startsWith(prefix.replace(/\/?$/, '/')));
    if (!route) {
      response.writeHead(404).end();
      return;
    }
    const upstream = route.cluster && this.#upstreams.get(route.cluster.name);
    if (!upstream) {
      fail(response, 500, `no usable backend for ${route.prefix}`);
      return;
    }
    const { cluster, connections } = upstream;
    const endpoint = this.#options.resolve(cluster.host, cluster.port);
    const tls = cluster.tls && this.#tlsOf(cluster);
    if (!endpoint || (cluster.tls && !tls)) {
      fail(response, 503, endpoint ? 'secret is not supplied' : `${cluster.host}:${cluster.port} is not known`);
      return;
    }
    const { freshEvery } = this.#options;
    const fresh = freshEvery > 0 && this.#requests % freshEvery === 0;
    const { connection: _, ...headers } = request.headers;
    const options = {
      ...endpoint,
      method: request.method,
      path,
      headers,
      agent: fresh ? false : connections.agent,
      ...tls,
    } as const;
    const answered = (answer: IncomingMessage) => {
      const { connection: __, 'keep-alive': ___, ...back } = answer.headers;
      response.writeHead(answer.statusCode ?? 502, back);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    };
    const sent = tls ? httpsRequest(options, answered) : httpRequest(options, answered);
    connections.carry(sent);
    sent.on('error', (error) => fail(response, 503, `${cluster.name}: ${error.message}`));
    request.pipe(sent);
  }

  /** By the secrets of now; undefined while one was never loaded. */
  #tlsOf({ tls }: ProxyCluster): ConnectionOptions | undefined {
    if (!tls) return undefined;
    const roots = this.#secrets.get(tls.roots)?.roots;
    const pair = tls.client === undefined ? {} : this.#secrets.get(tls.client);
    if (!roots || !pair) return undefined;
    return {
      cert: pair.certificate,
      key: pair.key,
      ca: firstOfEachAuthority(roots),
      servername: tls.sni,
      ALPNProtocols: [...tls.alpn],
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.3',
      checkServerIdentity: (_, { subjectaltname }: PeerCertificate) => mismatch(subjectaltname, tls.names),
    };
  }
}

function fail(response: ServerResponse, status: number, reason: string): void {
  if (response.headersSent) response.destroy();
  else response.writeHead(status, { 'content-type': 'text/plain' }).end(reason);
}

/**
 * One queue of connections for each endpoint of a cluster: an open one is used again, whatever certificate it began with,
 * but none to a pod that has left the endpoints.
 */
function agentFor({ tls }: ProxyCluster): HttpAgent | HttpsAgent {
  const agent = tls ? new HttpsAgent({ keepAlive: true, maxCachedSessions: 0 }) : new HttpAgent({ keepAlive: true });
  agent.getName = (endpoint) => `${endpoint?.host}:${endpoint?.port}`;
  return agent;
}

function mismatch(found: string | undefined, wanted: readonly string[]): Error | undefined {
  const names = (found ?? '').split(', ');
  return wanted.some((name) => names.includes(name))
    ? undefined
    : new Error(`verify SAN list: certificate SANs are [${names.join(', ')}]`);
}

/** Whether Envoy would load it. */
function loads({ certificate, key, roots }: ProxySecret): boolean {
  try {
    if (roots !== undefined) return parseCertificates(roots).length > 0;
    if (certificate === undefined || key === undefined) return false;
    createSecureContext({ cert: certificate, key });
    return true;
  } catch {
    return false;
  }
}
