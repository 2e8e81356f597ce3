import type {
  ClusterLists,
  Gateway,
  GatewayInstallation,
  Onboarding,
  RouteObjects,
  RouteUpstream,
} from '../gateway/gateway.ts';

import type { Adapter } from '../mesh/adapter.ts';
import { type Account, type Membership, selectsPod, type TargetRefusal } from '../mesh/cluster.ts';
import type { KubeObject } from '../objects/objects.ts';

/** A kind of gateway that can be taken into a mesh. */
export interface OnboardableGateway extends Gateway {
  readonly onboarding: Onboarding;
}

export const onboardable = (gateways: readonly Gateway[]): OnboardableGateway[] =>
  gateways.filter((one): one is OnboardableGateway => one.onboarding !== undefined);

/** A gateway that runs here. */
export interface GatewayFinding {
  readonly gateway: OnboardableGateway;
  readonly installation: GatewayInstallation;
  /** Meshes that its pods are in already, or will be at their next start. */
  readonly sidecars: readonly string[];
}

export const findGateways = (
  lists: ClusterLists & { readonly pods: readonly KubeObject[] },
  gateways: readonly Gateway[],
  adapters: readonly Adapter[],
): GatewayFinding[] =>
  onboardable(gateways).flatMap((gateway) =>
    gateway.onboarding
      .installations(lists)
      .map((installation) => ({ gateway, installation, sidecars: sidecarsOf(installation, lists, adapters) })),
  );

/** Those of the gateways that can be taken into a mesh. */
export const installationsIn = (lists: ClusterLists, gateways: readonly Gateway[]): readonly GatewayInstallation[] =>
  onboardable(gateways)
    .flatMap(({ onboarding }) => onboarding.installations(lists))
    .filter(({ problem }) => problem === undefined);

function sidecarsOf(
  { workload }: GatewayInstallation,
  { pods, namespaces }: { readonly pods: readonly KubeObject[]; readonly namespaces: readonly KubeObject[] },
  adapters: readonly Adapter[],
): string[] {
  if (!workload) return [];
  const namespace = namespaces.find(({ metadata }) => metadata.name === workload.metadata.namespace);
  const own = pods.filter((pod) => selectsPod(workload, pod));
  const found = adapters.flatMap(({ mesh, pods: of }) => [
    ...own.flatMap((pod) => of?.membership(pod, namespace)?.name ?? []),
    ...(of?.injected(workload, namespace) ? [mesh] : []),
  ]);
  return [...new Set(found)];
}

/** A route, and the workload behind it. */
export interface UpstreamFinding extends RouteUpstream {
  /** The number of pods behind it, and their ServiceAccounts. */
  readonly pods: number;
  readonly accounts: readonly Account[];
  /** The mesh that all of them are in; undefined: none, they differ, or it is unknown. */
  readonly membership: string | undefined;
  /** Why it cannot be served with the identity of a mesh, or why there is no single answer. */
  readonly problem: TargetRefusal | undefined;
}

export function findUpstream(
  upstream: RouteUpstream,
  objects: RouteObjects,
  adapters: readonly Adapter[],
): UpstreamFinding {
  const { answering } = upstream;
  const nothing = { ...upstream, pods: 0, accounts: [], membership: undefined };
  if ('code' in answering) return { ...nothing, problem: answering };
  const key = (namespace: string, name: string) => `${namespace}/${name}`;
  const pods = new Map(objects.pods.map((pod) => [key(pod.metadata.namespace ?? '', pod.metadata.name), pod]));
  const memberships = answering.map(({ namespace, name }) => {
    const pod = pods.get(key(namespace, name));
    return pod ? membershipsOf(pod, objects, adapters) : [];
  });
  const accounts = new Map(
    answering.map(({ serviceAccount, namespace }) => [key(namespace, serviceAccount), { serviceAccount, namespace }]),
  );
  const found = { ...nothing, pods: answering.length, accounts: [...accounts.values()] };
  const kinds = new Set(memberships.map((each) => each.map(({ name }) => name).join('+')));
  const [only = ''] = kinds;
  if (kinds.size > 1 || only.includes('+')) {
    const list = [...kinds].map((one) => one || 'no mesh').join(', ');
    const message = `the pods behind it are not in one mesh: ${list}; finish the rollout of the sidecars first, or give each of them a route`;
    return { ...found, problem: { code: 'ERR_TARGET_DISAGREE', message } };
  }
  return { ...found, membership: only === '' ? undefined : only, problem: memberships[0]?.[0]?.refusal };
}

/** More than one is a pod between two meshes. */
function membershipsOf(pod: KubeObject, { namespaces }: RouteObjects, adapters: readonly Adapter[]): Membership[] {
  const namespace = namespaces.find(({ metadata }) => metadata.name === pod.metadata.namespace);
  return adapters.flatMap(({ pods }) => pods?.membership(pod, namespace) ?? []);
}
