import { createServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { type Clock, systemClock } from '../../src/async/clock.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { type RunningServer, serve } from '../grpc/server.ts';
import type { SandboxCa } from '../tls/ca.ts';
import type { AclToken, AuthMethod } from './acl.ts';
import { grpcServices } from './grpc-api.ts';
import { HttpApi } from './http-api.ts';
import { ConsulState } from './state.ts';

export interface ConsulOptions {
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Default `dc1`. */
  readonly datacenter?: string;
  /** Enforce ACLs with default deny; default false. */
  readonly acl?: boolean;
  /** Serve both APIs with TLS, by a certificate of this authority for `server.<dc>.consul`, `localhost`, 127.0.0.1. */
  readonly tls?: SandboxCa;
  /** Default 72 hours. */
  readonly leafLifetimeMs?: number;
  /** Default ten years. */
  readonly rootLifetimeMs?: number;
}

const DAY = 86_400_000;

/** One Consul agent that is a server: HTTP and gRPC on loopback, on one CA. */
export async function startConsul(options: ConsulOptions = {}): Promise<Consul> {
  const consul = new Consul(options);
  await consul.start();
  return consul;
}

export class Consul {
  readonly intentions: Intentions;
  /** Names of the gRPC methods called, in order. */
  readonly grpcCalls: string[] = [];
  readonly #state: ConsulState;
  readonly #api: HttpApi;
  readonly #tls: { cert: string; key: string } | undefined;
  readonly #sockets = new Set<Socket>();
  #http: Server | undefined;
  #grpc: RunningServer | undefined;
  #httpPort = 0;
  #grpcPort = 0;

  constructor(options: ConsulOptions) {
    const { clock = systemClock, random = Math.random, datacenter = 'dc1', acl = false } = options;
    const { leafLifetimeMs = 3 * DAY, rootLifetimeMs = 3650 * DAY } = options;
    this.#state = new ConsulState({ clock, random, datacenter, acl, leafLifetimeMs, rootLifetimeMs });
    this.#api = new HttpApi(this.#state);
    this.intentions = new Intentions(acl ? 'deny' : 'allow', () => this.trustDomain);
    if (options.tls) {
      const dns = [`server.${datacenter}.consul`, 'localhost'];
      const { key, chain } = options.tls.identity({ dns, ips: ['127.0.0.1'], lifetimeMs: 365 * DAY });
      this.#tls = { cert: formatCertificates(chain), key: key.toPem() };
    }
  }

  /** Address of the HTTP API, with its scheme. */
  get httpAddress(): string {
    return `${this.#tls ? 'https' : 'http'}://127.0.0.1:${this.#httpPort}`;
  }

  /** Address of the gRPC API, `host:port`. */
  get grpcAddress(): string {
    return `127.0.0.1:${this.#grpcPort}`;
  }

  get trustDomain(): string {
    return this.#state.ca.trustDomain;
  }

  get datacenter(): string {
    return this.#state.datacenter;
  }

  get tokens(): readonly AclToken[] {
    return this.#state.acl.tokens;
  }

  /** Methods and paths of the HTTP requests, in order. */
  get httpRequests(): readonly string[] {
    return this.#api.requests;
  }

  /** What workloads trust now. */
  roots(): Certificate[] {
    return this.#state.ca.roots().map(({ certificate }) => certificate);
  }

  /** A workload's own certificate for this service. */
  issueServer(service: string): Identity {
    const key = PrivateKey.generate();
    const id = this.#state.serviceUri(service);
    const { chain } = this.#state.ca.sign(key.keyObject, { uris: [id] });
    return { id, key, chain, roots: this.roots() };
  }

  /** Whether the current signer issued an identity. */
  isCurrent({ chain }: Identity): boolean {
    return chain[0]?.authorityKeyId === this.#state.ca.roots()[0]?.signingKeyId.replaceAll(':', '');
  }

  addAuthMethod(method: AuthMethod): void {
    this.#state.acl.addMethod(method);
  }

  /** A token with service:write on one service; on all when none is named. */
  createToken(service?: string): AclToken {
    return this.#state.acl.create(service);
  }

  deleteToken(secret: string): void {
    this.#state.acl.delete(secret);
    this.#state.changed.fire();
  }

  rotateRoot(how: { crossSign: boolean } = { crossSign: true }): void {
    this.#state.changeRoots((ca) => ca.rotateRoot(how));
  }

  rotateIntermediate(): void {
    this.#state.changeRoots((ca) => ca.rotateIntermediate());
  }

  /** Signs with the result of `signer` below the active root, like another vendor's CA provider. */
  plugIn(signer: (root: SandboxCa) => SandboxCa): void {
    this.#state.changeRoots((ca) => ca.plugIn(signer));
  }

  pruneRoots(): void {
    this.#state.changeRoots((ca) => ca.prune());
  }

  setLeafLifetime(ms: number): void {
    this.#state.ca.leafLifetimeMs = ms;
  }

  /** The agent makes new leaves for the clients that wait for one. */
  renewLeaves(): void {
    this.#api.renewLeaves();
  }

  /** Refuses the next `count` signing requests as rate-limited; 0 ends it. */
  rateLimit(count = Number.POSITIVE_INFINITY): void {
    this.#state.limited = count;
  }

  noLeader(on: boolean): void {
    this.#state.leaderless = on;
  }

  connectDisabled(on: boolean): void {
    this.#state.connectDisabled = on;
    this.#state.changed.fire();
  }

  indexBackwards(): void {
    this.#state.stepIndexBack();
  }

  /** The next answer of the HTTP API, whatever the request. */
  answerNext(status: number, body: string): void {
    this.#api.scripted.push({ status, body });
  }

  /** Breaks connections and accepts none until the outage ends. */
  async outage(on: boolean): Promise<void> {
    if (on) await this.stop();
    else await this.start();
  }

  /** Breaks connections; with a new trust domain everything that was in memory is lost. */
  async restart({ newTrustDomain = false }: { newTrustDomain?: boolean } = {}): Promise<void> {
    await this.stop();
    if (newTrustDomain) this.#state.rebuild();
    await this.start();
  }

  async start(): Promise<void> {
    const handle = (...args: Parameters<HttpApi['handle']>) => void this.#api.handle(...args);
    const server = this.#tls ? createTlsServer(this.#tls, handle) : createServer(handle);
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => socket.destroy());
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#httpPort, '127.0.0.1', resolve);
    });
    this.#http = server;
    this.#httpPort = (server.address() as AddressInfo).port;
    const services = grpcServices(this.#state, this.grpcCalls);
    this.#grpc = await serve({ services, listen: { port: this.#grpcPort }, tls: this.#tls });
    this.#grpcPort = this.#grpc.port;
  }

  async stop(): Promise<void> {
    const http = this.#http;
    const closed = new Promise<void>((resolve) => (http ? http.close(() => resolve()) : resolve()));
    for (const socket of this.#sockets) socket.destroy();
    http?.closeAllConnections();
    await Promise.all([closed, this.#grpc?.stop()]);
    this.#http = undefined;
    this.#grpc = undefined;
  }
}

type IntentionAction = 'allow' | 'deny';

/**
 * Which services may call which, as sidecars enforce it: by trust domain, namespace and service of the caller, not
 * datacenter.
 */
export class Intentions {
  readonly #fallback: IntentionAction;
  readonly #trustDomain: () => string;
  readonly #rules = new Map<string, IntentionAction>();

  constructor(fallback: IntentionAction, trustDomain: () => string) {
    this.#fallback = fallback;
    this.#trustDomain = trustDomain;
  }

  set(source: string, destination: string, verdict: IntentionAction): void {
    this.#rules.set(`${source} ${destination}`, verdict);
  }

  /** Whether the holder of this SPIFFE ID may call that service. */
  allows(peerId: string, destination: string): boolean {
    const source = new RegExp(`^spiffe://${this.#trustDomain()}/ns/default/dc/[^/]+/svc/([^/]+)$`).exec(peerId)?.[1];
    if (source === undefined) return false;
    const verdict = this.#rules.get(`${source} ${destination}`) ?? this.#rules.get(`* ${destination}`);
    return (verdict ?? this.#fallback) === 'allow';
  }
}
