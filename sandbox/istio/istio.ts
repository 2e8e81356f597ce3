import { type Clock, systemClock } from '../../src/async/clock.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { type RunningServer, serve } from '../grpc/server.ts';
import type { SandboxCa } from '../tls/ca.ts';
import { IstioAuthority, type Layout } from './authority.ts';
import { type Authenticate, type CaFault, CaService } from './ca-service.ts';
import { PilotAgent } from './pilot-agent.ts';
import { SpireAgent } from './spire-agent.ts';

export interface IstioOptions {
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Default `cluster.local`. */
  readonly trustDomain?: string;
  /** Default `Kubernetes`. */
  readonly clusterId?: string;
  /** The owner of a token, if it is valid for audience istio-ca. Default: no token is valid. */
  readonly authenticate?: Authenticate;
  /** Default `self-signed`. */
  readonly layout?: Layout;
  /** Default `istiod`. */
  readonly manner?: 'istiod' | 'istio-csr';
  /** Default 24 hours. */
  readonly leafLifetimeMs?: number;
  /** Default ten years. */
  readonly rootLifetimeMs?: number;
  /** Default 90 days for istiod, one hour for istio-csr. */
  readonly maxLeafLifetimeMs?: number;
  /** Called with the PEM text of ConfigMap istio-ca-root-cert: at start and at each change. */
  readonly publishRoots?: (pem: string) => Promise<void> | void;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
export const ISTIOD_NAME = 'istiod.istio-system.svc';

/** istiod on a free loopback port: a CA, and agents on sockets that use it. */
export async function startIstio(options: IstioOptions = {}): Promise<Istio> {
  const istio = new Istio(options);
  await istio.start();
  return istio;
}

export class Istio {
  readonly trustDomain: string;
  readonly serverName = ISTIOD_NAME;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #authority: IstioAuthority;
  readonly #service: CaService;
  readonly #publishRoots: (pem: string) => Promise<void> | void;
  readonly #agents = new Set<PilotAgent | SpireAgent>();
  #server: RunningServer | undefined;
  #port = 0;

  constructor(options: IstioOptions) {
    const { clock = systemClock, random = Math.random, layout = 'self-signed', manner = 'istiod' } = options;
    const { leafLifetimeMs = DAY, rootLifetimeMs = 3650 * DAY, clusterId = 'Kubernetes' } = options;
    this.trustDomain = options.trustDomain ?? 'cluster.local';
    this.#clock = clock;
    this.#random = random;
    this.#publishRoots = options.publishRoots ?? (() => {});
    this.#authority = new IstioAuthority({ clock, layout, leafLifetimeMs, rootLifetimeMs });
    this.#service = new CaService({
      clock,
      authority: this.#authority,
      trustDomain: this.trustDomain,
      clusterId,
      manner,
      authenticate: options.authenticate ?? (() => undefined),
      maxLifetimeMs: options.maxLeafLifetimeMs ?? (manner === 'istiod' ? 90 * DAY : HOUR),
    });
  }

  async start(): Promise<void> {
    await this.#listen();
    await this.#publishRoots(this.rootPem);
  }

  /** `host:port` of the CA; its certificate is for `serverName`. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** The content of ConfigMap istio-ca-root-cert. */
  get rootPem(): string {
    return this.#authority.rootPem;
  }

  /** The identities that certificates were issued for, in order. */
  get issued(): readonly string[] {
    return this.#service.issued;
  }

  /** Calls of the CA, whatever their outcome. */
  get requests(): number {
    return this.#service.requests;
  }

  /** Whether the CA can be reached. */
  get running(): boolean {
    return this.#server !== undefined;
  }

  idOf(namespace: string, account: string): string {
    return `spiffe://${this.trustDomain}/ns/${namespace}/sa/${account}`;
  }

  /** The roots that sidecars trust once each of them has renewed. */
  roots(): Certificate[] {
    return [...this.#authority.roots];
  }

  /** A workload's own identity, from the current signer. */
  issueServer(id: string): Identity {
    return this.#authority.identity(id);
  }

  /** Whether the current signer issued an identity. */
  isCurrent({ chain }: Pick<Identity, 'chain'>): boolean {
    return chain[0]?.isIssuedBy(this.#authority.signer.certificate) ?? false;
  }

  async rotateRoot(how: { readonly key: 'same' | 'new' } = { key: 'same' }): Promise<void> {
    this.#authority.rotateRoot(how.key);
    await this.#authorityChanged();
  }

  /** Roots A, then A and B, then the same with B signing, then B: one step for each call. */
  async overlapRoot(): Promise<'trusted' | 'signing' | 'alone'> {
    const step = this.#authority.overlapRoot();
    await this.#authorityChanged();
    return step;
  }

  async rotateIntermediate(): Promise<void> {
    this.#authority.rotateIntermediate();
    await this.#authorityChanged();
  }

  /** Signs workloads with the result of `signer` below the root, like a CA that an operator plugs in. */
  plugIn(signer: (root: SandboxCa) => SandboxCa): void {
    this.#authority.plugIn(signer);
  }

  setLeafLifetime(ms: number): void {
    this.#authority.leafLifetimeMs = ms;
  }

  /** On: the CA's port is closed, and agents cannot renew. */
  async outage(on: boolean): Promise<void> {
    if (on) {
      await this.#server?.stop();
      this.#server = undefined;
    } else if (!this.#server) await this.#listen();
  }

  /** From now on every answer of the CA has this fault; `undefined` ends it. */
  fail(fault: CaFault | undefined): void {
    this.#service.fault = fault;
  }

  /** An agent as in an injected pod, serving SDS on `socket`. */
  async startPilotAgent(options: { readonly socket: string; readonly id: string }): Promise<PilotAgent> {
    const agent = new PilotAgent({
      ...options,
      clock: this.#clock,
      random: this.#random,
      request: () => {
        if (!this.running) throw new Error('rpc error: code = Unavailable desc = connection refused');
        return this.#authority.identity(options.id);
      },
    });
    this.#agents.add(agent);
    await agent.start();
    return agent;
  }

  /** A SPIRE agent, for which this authority acts as the server. */
  async startSpireAgent(options: { readonly socket: string; readonly id: string }): Promise<SpireAgent> {
    const agent = new SpireAgent({
      ...options,
      clock: this.#clock,
      trustDomain: this.trustDomain,
      request: () => this.#authority.identity(options.id),
    });
    this.#agents.add(agent);
    await agent.start();
    return agent;
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#agents].map((agent) => agent.stop()));
    await this.#server?.stop();
    this.#server = undefined;
  }

  async #listen(): Promise<void> {
    const services = { 'istio.v1.auth.IstioCertificateService': this.#service.handler };
    this.#server = await serve({ services, listen: { port: this.#port }, tls: this.#tls() });
    this.#port = this.#server.port;
  }

  async #authorityChanged(): Promise<void> {
    this.#server?.setTls(this.#tls());
    await this.#publishRoots(this.rootPem);
  }

  #tls() {
    const { signer } = this.#authority;
    const { key, chain } = signer.identity({ dns: [ISTIOD_NAME], lifetimeMs: 365 * DAY });
    return { key: key.toPem(), cert: formatCertificates(chain), clientCa: this.rootPem };
  }
}
