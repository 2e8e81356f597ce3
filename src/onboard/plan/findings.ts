import type { Gateway } from '../../gateway/gateway.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Installation } from '../../mesh/cluster.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import { findGateways, type GatewayFinding } from '../discover/gateway.ts';
import { findUpstream, type UpstreamFinding } from '../discover/upstream.ts';
import type { OnboardSnapshot, Unseen } from './snapshot.ts';

/** The discovered state, before anything is planned. */
export interface Findings {
  readonly meshes: readonly Installation[];
  /** Further remarks of the meshes' adapters about this cluster, for people. */
  readonly remarks: readonly string[];
  readonly gateways: readonly GatewayFinding[];
  /** Our agents: their Deployments, and the holders of their Lease. */
  readonly agents: readonly string[];
  readonly unseen: readonly Unseen[];
}

export function discover(
  snapshot: OnboardSnapshot,
  { adapters, gateways }: { readonly adapters: readonly Adapter[]; readonly gateways: readonly Gateway[] },
): Findings {
  return {
    meshes: adapters.flatMap((adapter) => adapter.discover?.installations(snapshot) ?? []),
    remarks: adapters.flatMap((adapter) => adapter.discover?.remarks?.(snapshot) ?? []),
    gateways: findGateways(snapshot, gateways, adapters),
    agents: agentsOf(snapshot),
    unseen: snapshot.unseen,
  };
}

function agentsOf({ workloads, leases }: OnboardSnapshot): string[] {
  const deployed = workloads.filter(({ metadata }) => metadata.labels?.['app.kubernetes.io/name'] === 'meshcert');
  const held = leases.filter(({ metadata }) => /^meshcert(-\d+)?$/.test(metadata.name));
  const holders = held.flatMap((lease) => text(fields(lease.spec).holderIdentity) ?? []);
  return [...deployed.map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`), ...holders];
}

/** The routes that this gateway serves, by namespace and name. */
export function findUpstreams(
  snapshot: OnboardSnapshot,
  { gateway, installation }: GatewayFinding,
  adapters: readonly Adapter[],
): UpstreamFinding[] {
  const place = ({ route: { metadata, kind } }: UpstreamFinding) => `${metadata.namespace}/${metadata.name}/${kind}`;
  return gateway.onboarding
    .upstreams(installation, snapshot)
    .map((upstream) => findUpstream(upstream, snapshot, adapters))
    .sort((a, b) => (place(a) < place(b) ? -1 : 1));
}

/** The finding for a mesh that is used if there are several. */
export const firstOf = (meshes: readonly Installation[], mesh: string): Installation | undefined =>
  meshes.find((one) => one.mesh === mesh && one.problem === undefined) ?? meshes.find((one) => one.mesh === mesh);
