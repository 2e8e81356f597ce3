import type { KubeObject } from '../../core/object.ts';
import type { RouteObjects, RouteUpstream } from '../../gateway/onboarding.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Account, Membership } from '../../mesh/cluster.ts';
import type { TargetRefusal } from '../../mesh/targeting.ts';

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
