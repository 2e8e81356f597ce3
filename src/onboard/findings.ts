import { fields, text } from '../gateway/kinds.ts';
import { seesMapping } from '../gateway/reading.ts';
import { type ConsulFinding, findConsul } from './discover/consul.ts';
import { findGateways, type GatewayFinding } from './discover/gateway.ts';
import { ambientNamespaces, findIstio, type IstioFinding, injectedNamespaces } from './discover/istio.ts';
import { findLinkerd, type LinkerdFinding } from './discover/linkerd.ts';
import type { MeshName } from './discover/membership.ts';
import { type UpstreamFinding, upstreamOf } from './discover/upstream.ts';
import type { Snapshot, Unseen } from './snapshot.ts';

export type MeshFinding = IstioFinding | LinkerdFinding | ConsulFinding;

/** What there is, before anything is wished. */
export interface Findings {
  readonly meshes: readonly MeshFinding[];
  readonly ambient: readonly string[];
  readonly injected: readonly { readonly namespace: string; readonly revision: string }[];
  readonly gateways: readonly GatewayFinding[];
  /** Agents of ours: their Deployments, and whoever holds their Lease. */
  readonly agents: readonly string[];
  readonly unseen: readonly Unseen[];
}

export function discover(snapshot: Snapshot): Findings {
  return {
    meshes: [...findIstio(snapshot), ...findLinkerd(snapshot), ...findConsul(snapshot)],
    ambient: ambientNamespaces(snapshot.namespaces),
    injected: injectedNamespaces(snapshot.namespaces),
    gateways: findGateways(snapshot),
    agents: agentsOf(snapshot),
    unseen: snapshot.unseen,
  };
}

function agentsOf({ workloads, leases }: Snapshot): string[] {
  const deployed = workloads.filter(({ metadata }) => metadata.labels?.['app.kubernetes.io/name'] === 'meshcert');
  const held = leases.filter(({ metadata }) => /^meshcert(-\d+)?$/.test(metadata.name));
  const holders = held.flatMap((lease) => text(fields(lease.spec).holderIdentity) ?? []);
  return [...deployed.map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`), ...holders];
}

/** The Mappings that this gateway serves, by namespace and name. */
export function upstreamsOf(snapshot: Snapshot, { env }: GatewayFinding): UpstreamFinding[] {
  const ambient = new Set(ambientNamespaces(snapshot.namespaces));
  const place = ({ mapping: { metadata, kind } }: UpstreamFinding) => `${metadata.namespace}/${metadata.name}/${kind}`;
  return snapshot.mappings
    .filter((mapping) => seesMapping(mapping, env))
    .map((mapping) => upstreamOf(mapping, snapshot, ambient))
    .sort((a, b) => (place(a) < place(b) ? -1 : 1));
}

/** The finding that speaks for a mesh where several would do. */
export const firstOf = (meshes: readonly MeshFinding[], mesh: MeshName): MeshFinding | undefined =>
  meshes.find((one) => one.mesh === mesh && one.problem === undefined) ?? meshes.find((one) => one.mesh === mesh);
