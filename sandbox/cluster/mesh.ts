import type { Clock } from '../../src/async/clock.ts';
import type { Kube } from '../../src/kube/api.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';

import type { PoolEndpoint } from '../emissary/pool.ts';
import type { KubeApi } from '../kube/kube-api.ts';

/** What people call the gateways of the cluster. */
export const GATEWAY_TITLES = ['Emissary', 'Envoy Gateway'] as const;
export type GatewayTitle = (typeof GATEWAY_TITLES)[number];

/** The gateway's namespace. */
export const GATEWAY_NAMESPACE = 'emissary';
export const GATEWAY_ACCOUNT = 'emissary';
/** The workload of each mesh, called `web` in the namespace `<mesh>-apps`. */
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

/** One mesh of the cluster: its CA, a workload that requires mTLS, and an operator's configuration for it. */
export interface ClusterMesh {
  readonly name: string;
  /** `spec.<mesh>` of a MeshCertificate for the gateway. */
  readonly config: object;
  /** The identity that the workload accepts. */
  readonly gatewayId: string;
  /** The identity of the workload, where the mesh does not derive it from its ServiceAccount or Service. */
  readonly workloadId?: string;
  /** The current address of the workload. */
  endpoint(): PoolEndpoint;
  /** Requests that the workload served. */
  requests(): number;
  /** Handshakes that the workload refused because the client's certificate had ended. */
  expired(): number;
  /** A whole root rotation in the order of this mesh's manual; `pause` is the operator's wait between the steps. */
  rotateRoot(pause: () => Promise<void>): Promise<void>;
  setLeafLifetime(ms: number): void;
  /** Stops the CA, or starts it again. */
  outage(on: boolean): Promise<void> | void;
  stop(): Promise<void>;
}

/** A workload's own certificate and its roots, both renewed together, as in sidecars. */
export class MeshWorkload<T> {
  readonly #clock: Clock;
  readonly #issue: () => { readonly identity: Identity; readonly more: T };
  #held: { readonly identity: Identity; readonly more: T };

  constructor(clock: Clock, issue: () => { readonly identity: Identity; readonly more: T }) {
    this.#clock = clock;
    this.#issue = issue;
    this.#held = issue();
  }

  /** Renews at half of the leaf's life, on read. */
  get now(): { readonly identity: Identity; readonly more: T } {
    const { notBefore, notAfter } = leafOf(this.#held.identity);
    if (this.#clock.now() >= (notBefore + notAfter) / 2) this.#held = this.#issue();
    return this.#held;
  }
}
