import type { Clock } from '../async/clock.ts';
import type { Kube } from '../kube/api.ts';
import type { Identity } from '../mesh/identity.ts';
import { leafOf } from '../mesh/identity.ts';
import type { PoolEndpoint } from './gateway/pool.ts';
import type { KubeApi } from './kube/kube-api.ts';

/** Where the gateway runs, and as whom. */
export const GATEWAY_NAMESPACE = 'emissary';
export const GATEWAY_ACCOUNT = 'emissary';
/** The workload that each mesh has, called `web` in the namespace `<mesh>-apps`. */
export const WORKLOAD = 'web';
export const appsOf = (mesh: string): string => `${mesh}-apps`;

export interface MeshSetup {
  readonly api: KubeApi;
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly leafLifetimeMs: number;
  readonly rootLifetimeMs: number;
}

/** Starts the sandbox of a mesh in a cluster. */
export type StartMesh = (setup: MeshSetup) => Promise<ClusterMesh>;

/** One mesh of the cluster: its authority, a workload that demands mTLS, and what an operator would write for it. */
export interface ClusterMesh {
  readonly name: string;
  /** `spec.<mesh>` of a MeshCertificate for the gateway. */
  readonly config: object;
  /** Whom the workload lets in. */
  readonly gatewayId: string;
  /** Where the workload listens now. */
  endpoint(): PoolEndpoint;
  /** Requests that the workload served. */
  requests(): number;
  /** A whole root rotation as this mesh's manual has it; `pause` is what an operator waits between the steps. */
  rotateRoot(pause: () => Promise<void>): Promise<void>;
  setLeafLifetime(ms: number): void;
  /** The authority is gone, or back. */
  outage(on: boolean): Promise<void> | void;
  stop(): Promise<void>;
}

/** A workload's own certificate and what it trusts, both renewed together, as sidecars do. */
export class MeshWorkload<T> {
  readonly #clock: Clock;
  readonly #issue: () => { readonly identity: Identity; readonly more: T };
  #held: { readonly identity: Identity; readonly more: T };

  constructor(clock: Clock, issue: () => { readonly identity: Identity; readonly more: T }) {
    this.#clock = clock;
    this.#issue = issue;
    this.#held = issue();
  }

  /** Renews at half of the leaf's life, when asked. */
  get now(): { readonly identity: Identity; readonly more: T } {
    const { notBefore, notAfter } = leafOf(this.#held.identity);
    if (this.#clock.now() >= (notBefore + notAfter) / 2) this.#held = this.#issue();
    return this.#held;
  }
}
