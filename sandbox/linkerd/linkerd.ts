import { type Clock, systemClock } from '../../src/async/clock.ts';
import type { Kube } from '../../src/kube/api.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { serve } from '../grpc/server.ts';
import type { SandboxCa } from '../tls/ca.ts';
import { LinkerdAuthority } from './authority.ts';
import { certifyHandler } from './identity.ts';
import { controlPlaneObjects, type ServiceOptions, serviceObjects } from './objects.ts';
import { Pod, type PodOptions, refreshAt } from './pod.ts';
import { type InboundProxy, pipeTo, startProxy } from './proxy.ts';
import { reviewBy, reviewClaims, type TokenReviewer } from './token-review.ts';

export interface LinkerdOptions {
  readonly clock?: Clock;
  /** Default `linkerd`. */
  readonly namespace?: string;
  /** Default `cluster.local`. */
  readonly trustDomain?: string;
  readonly clusterDomain?: string;
  /** Default 24 h, as the chart's. */
  readonly leafLifetimeMs?: number;
  readonly rootLifetimeMs?: number;
  /** Default 20 s, as the chart's. */
  readonly skewMs?: number;
  /** Default: the API server's review after installation into one, before that the token's own claims. */
  readonly review?: TokenReviewer;
}

const DAY = 86_400_000;

export async function startLinkerd(options: LinkerdOptions = {}): Promise<Linkerd> {
  const linkerd = new Linkerd(options);
  await linkerd.start();
  return linkerd;
}

/** Linkerd's control plane and meshed pods on loopback. */
export class Linkerd {
  readonly namespace: string;
  readonly trustDomain: string;
  readonly clusterDomain: string;
  /** Identities for which certificates were issued over gRPC, in order. */
  readonly issued: string[] = [];
  readonly #clock: Clock;
  readonly #authority: LinkerdAuthority;
  readonly #pods = new Set<Pod>();
  #review: TokenReviewer;
  #anchors: readonly Certificate[];
  #workloadAnchors: readonly Certificate[];
  #failure: number | undefined;
  #down = false;
  #api: Kube | undefined;
  #address = '';
  #plaintextAddress = '';
  #proxy: InboundProxy | undefined;
  #stop: () => Promise<void> = async () => {};

  constructor(options: LinkerdOptions) {
    this.namespace = options.namespace ?? 'linkerd';
    this.trustDomain = options.trustDomain ?? 'cluster.local';
    this.clusterDomain = options.clusterDomain ?? 'cluster.local';
    this.#clock = options.clock ?? systemClock;
    this.#review = options.review ?? reviewClaims;
    this.#authority = new LinkerdAuthority({
      clock: this.#clock,
      trustDomain: this.trustDomain,
      leafLifetimeMs: options.leafLifetimeMs ?? DAY,
      skewMs: options.skewMs ?? 20_000,
      rootLifetimeMs: options.rootLifetimeMs,
    });
    this.#anchors = this.#authority.bundle;
    this.#workloadAnchors = this.#authority.bundle;
  }

  /** Address of the identity service's proxy. */
  get address(): string {
    return this.#address;
  }

  /** Address of the controller itself: what an injected client reaches through its own proxy. */
  get plaintextAddress(): string {
    return this.#plaintextAddress;
  }

  /** Number of TLS connections to the identity service. */
  get connections(): number {
    return this.#proxy?.counts.terminated ?? 0;
  }

  identityOf(serviceAccount: string, namespace: string): string {
    return `${serviceAccount}.${namespace}.serviceaccount.identity.${this.namespace}.${this.trustDomain}`;
  }

  /** The roots in the ConfigMap. */
  bundle(): readonly Certificate[] {
    return this.#authority.bundle;
  }

  /** The roots that workloads verify against: the bundle of their last restart. */
  roots(): readonly Certificate[] {
    return this.#workloadAnchors;
  }

  async start(): Promise<void> {
    const handler = certifyHandler({
      authority: this.#authority,
      anchors: () => this.#anchors,
      nameOf: ({ kind, namespace, name }) =>
        `${name}.${namespace}.${kind}.identity.${this.namespace}.${this.trustDomain}`,
      review: (token, audiences) => this.#review(token, audiences),
      failure: () => this.#failure,
      issued: (identity) => this.issued.push(identity),
    });
    const controller = await serve({
      services: { 'io.linkerd.proxy.identity.Identity': { Certify: handler } },
      listen: { port: 0 },
    });
    const own = this.identityOf('linkerd-identity', this.namespace);
    let identity = this.issueServer(own);
    let issuer = this.#authority.issuerChain;
    const proxy = await startProxy({
      kind: 'ordinary',
      identity: () => {
        const { issuerChain } = this.#authority;
        const due = this.#clock.now() >= refreshAt(leafOf(identity));
        if (
          !this.#authority.isPluggedIn &&
          (issuerChain !== issuer || due) &&
          !this.#authority.issuerProblem(this.#anchors)
        ) {
          identity = this.issueServer(own);
          issuer = issuerChain;
        }
        return identity;
      },
      anchors: () => this.#anchors,
      terminated: (socket) => (this.#down ? socket.destroy() : pipeTo(socket, controller.port)),
      passed: (socket) => (this.#down ? socket.destroy() : pipeTo(socket, controller.port)),
    });
    this.#proxy = proxy;
    this.#address = `127.0.0.1:${proxy.port}`;
    this.#plaintextAddress = controller.address;
    this.#stop = async () => {
      await proxy.stop();
      await controller.stop();
    };
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#pods].map((pod) => pod.stop()));
    await this.#stop();
  }

  /** A certificate for a workload that is not one of our pods. */
  issueServer(id: string): Identity {
    const key = PrivateKey.generate();
    return { id, key, chain: this.#authority.issue(key, id), roots: this.bundle() };
  }

  async startPod(options: PodOptions): Promise<Pod> {
    const id = this.identityOf(options.serviceAccount, options.namespace);
    const pod = new Pod(options, {
      clock: this.#clock,
      id,
      issue: () => this.issueServer(id),
      bundle: () => this.bundle(),
    });
    await pod.start();
    this.#pods.add(pod);
    return pod;
  }

  /** Writes and updates the control plane's ConfigMaps, and has tokens reviewed by that API server. */
  async install(api: Kube): Promise<void> {
    this.#api = api;
    if (this.#review === reviewClaims) this.#review = reviewBy(api);
    await this.#publish();
  }

  /** Adds a Service and its pods to the API that this was installed into. */
  async addPods(options: Omit<ServiceOptions, 'controlPlane'>): Promise<void> {
    await this.#apply(serviceObjects({ ...options, controlPlane: this.namespace }));
  }

  setLeafLifetime(ms: number): void {
    this.#authority.leafLifetimeMs = ms;
  }

  setSkew(ms: number): void {
    this.#authority.skewMs = ms;
  }

  setReview(review: TokenReviewer): void {
    this.#review = review;
  }

  /**
   * A new issuer below the newest root; effective for the next leaf. A short life limits leaves, 0 means already
   * expired.
   */
  rotateIssuer(options: { readonly lifetimeMs?: number } = {}): void {
    this.#authority.replaceIssuer(options);
  }

  /**
   * Issues with the result of `issuer` below the newest root, without the controller's check of its issuer. The
   * controller's own proxy stays as it is.
   */
  plugIn(issuer: (root: SandboxCa) => SandboxCa): void {
    this.#authority.plugIn(issuer);
  }

  setRootInIssuerFile(on: boolean): void {
    this.#authority.rootInIssuerFile = on;
  }

  unloadIssuer(): void {
    this.#authority.unloadIssuer();
  }

  /** A second root in the bundle. The issuer stays below the old one until `rotateIssuer`. */
  async addRoot(): Promise<void> {
    this.#authority.addRoot();
    await this.#publish();
  }

  async dropOldRoots(): Promise<void> {
    this.#authority.dropOldRoots();
    await this.#publish();
  }

  restartControlPlane(): void {
    this.#anchors = this.bundle();
  }

  /** The only way in which workloads learn roots. */
  async restartPods(): Promise<void> {
    this.#workloadAnchors = this.bundle();
    await Promise.all([...this.#pods].map((pod) => pod.restart()));
  }

  /** A root rotation in the order of Linkerd's own guide, up to the new issuer; `dropOldRoots` completes it. */
  async rotateRoot(): Promise<void> {
    await this.addRoot();
    this.restartControlPlane();
    await this.restartPods();
    this.rotateIssuer();
  }

  /** Breaks the connections to the identity service. */
  outage(on: boolean): void {
    this.#down = on;
  }

  /** Certify answers with this gRPC status; undefined: normally. */
  fail(status: number | undefined): void {
    this.#failure = status;
  }

  async #publish(): Promise<void> {
    const { namespace, trustDomain, clusterDomain } = this;
    await this.#apply(controlPlaneObjects({ namespace, trustDomain, clusterDomain, bundle: this.bundle() }));
  }

  async #apply(objects: readonly KubeObject[]): Promise<void> {
    for (const object of objects) await this.#api?.apply(object, { fieldManager: 'linkerd', force: true });
  }
}
