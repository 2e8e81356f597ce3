import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../../src/async/clock.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import { createHttpServer } from '../tls/upstream.ts';
import { type InboundProxy, listen, type PortKind, pipeTo, startProxy } from './proxy.ts';

/** The clients that may call: Linkerd's default policies, or an AuthorizationPolicy that names identities. */
export type PodPolicy = 'all-unauthenticated' | 'all-authenticated' | { readonly identities: readonly string[] };

export interface PodOptions {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Default `all-unauthenticated`, the chart's. */
  readonly policy?: PodPolicy;
  /** Without a proxy, its port speaks plaintext. Default true. */
  readonly meshed?: boolean;
  /** Kind of its port. Default `ordinary`. */
  readonly port?: PortKind;
}

export interface PodMesh {
  readonly clock: Clock;
  readonly id: string;
  readonly issue: () => Identity;
  readonly bundle: () => readonly Certificate[];
}

export interface PodCounts {
  requests: number;
  /** Requests answered with 403 by policy. */
  denied: number;
  /** Requests by the identity of the client; under `''` for clients without one. */
  readonly clients: Map<string, number>;
}

/** A TLS handshake and a request take about ten turns of an event loop that both ends share. */
const QUIET_TURNS = 30;
/** A pod goes down even if requests never stop. */
const MOST_TURNS = 1000;
/** Share of a leaf's life after which a proxy requests the next. */
const REFRESH = 0.7;

export const refreshAt = ({ notBefore, notAfter }: Certificate): number => notBefore + (notAfter - notBefore) * REFRESH;

/** A workload behind Linkerd's proxy. Anchors are read at start; only `restart` updates them. */
export class Pod {
  readonly options: PodOptions;
  /** The identity that clients must send as SNI. */
  readonly id: string;
  readonly counts: PodCounts = { requests: 0, denied: 0, clients: new Map() };
  readonly #mesh: PodMesh;
  #identity: Identity;
  #anchors: readonly Certificate[];
  #app: { readonly port: number; close(): Promise<void>; emit(socket: Socket): void } | undefined;
  #proxy: InboundProxy | undefined;

  constructor(options: PodOptions, mesh: PodMesh) {
    this.options = options;
    this.id = mesh.id;
    this.#mesh = mesh;
    this.#anchors = mesh.bundle();
    this.#identity = mesh.issue();
  }

  /** The port that clients dial: that of the application, which iptables redirects to the proxy. */
  get port(): number {
    return (this.#proxy ?? this.#app)?.port ?? 0;
  }

  get proxy(): InboundProxy | undefined {
    return this.#proxy;
  }

  get anchors(): readonly Certificate[] {
    return this.#anchors;
  }

  async start(): Promise<void> {
    const clients = new WeakMap<Socket, string | undefined>();
    const server = createHttpServer((request, response) =>
      this.#answer(request, response, clients.get(request.socket)),
    );
    const port = await listen(server);
    this.#app = {
      port,
      emit: (socket) => server.emit('connection', socket),
      close: async () => {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      },
    };
    if (this.options.meshed === false) return;
    this.#proxy = await startProxy({
      kind: this.options.port ?? 'ordinary',
      identity: () => this.#currentIdentity(),
      anchors: () => this.#anchors,
      terminated: (socket, client) => {
        clients.set(socket, client);
        server.emit('connection', socket);
      },
      passed: (socket) => pipeTo(socket, port),
    });
  }

  /**
   * Like a rollout: the only way to new anchors. Requests in progress are answered first, and clients learn of the
   * closed connections before this resolves.
   */
  async restart(): Promise<void> {
    await this.#settle();
    this.#anchors = this.#mesh.bundle();
    this.#identity = this.#mesh.issue();
    this.#proxy?.cut();
    await this.#settle();
  }

  async stop(): Promise<void> {
    await this.#proxy?.stop();
    await this.#app?.close();
  }

  /** Waits until nothing has arrived for some turns: on loopback, sent data arrives within a few. */
  async #settle(): Promise<void> {
    for (let quiet = 0, turns = 0; quiet < QUIET_TURNS && turns < MOST_TURNS; quiet++, turns++) {
      const before = this.#arrivals;
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#arrivals !== before) quiet = 0;
    }
  }

  get #arrivals(): number {
    const { terminated = 0, passed = 0, refused = 0 } = this.#proxy?.counts ?? {};
    return this.counts.requests + this.counts.denied + terminated + passed + refused;
  }

  /** Renews by itself, and refuses a leaf that its own anchors do not verify. */
  #currentIdentity(): Identity {
    const leaf = leafOf(this.#identity);
    const now = this.#mesh.clock.now();
    if (now < refreshAt(leaf)) return this.#identity;
    try {
      const next = this.#mesh.issue();
      const [first, ...above] = next.chain;
      if (first && findPath(first, above, this.#anchors, now).ok) this.#identity = next;
    } catch {
      // No issuer for now: the old leaf serves until it expires.
    }
    return this.#identity;
  }

  #answer(request: IncomingMessage, response: ServerResponse, client: string | undefined): void {
    request.resume();
    const { policy = 'all-unauthenticated', meshed } = this.options;
    const allowed =
      meshed === false ||
      policy === 'all-unauthenticated' ||
      (client !== undefined && (policy === 'all-authenticated' || policy.identities.includes(client)));
    if (!allowed) {
      this.counts.denied++;
      response.writeHead(403, { 'l5d-proxy-error': 'client is not authorized' }).end();
      return;
    }
    this.counts.requests++;
    this.counts.clients.set(client ?? '', (this.counts.clients.get(client ?? '') ?? 0) + 1);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ pod: this.options.name, peer: client ?? '', path: request.url }));
  }
}
