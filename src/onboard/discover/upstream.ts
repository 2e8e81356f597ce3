import type { KubeObject } from '../../core/object.ts';
import { mappingSpec } from '../../gateway/emissary/reading/kinds.ts';
import { parseService } from '../../gateway/emissary/reading/service.ts';
import { podsBehind } from '../../gateway/emissary/routes/endpoints.ts';
import { serviceNameOf } from '../../gateway/emissary/routes/service-name.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Account, Membership } from '../../mesh/cluster.ts';
import type { TargetRefusal } from '../../mesh/targeting.ts';

/** A Mapping and the workload that serves it. */
export interface UpstreamFinding {
  readonly mapping: KubeObject;
  /** The port that the gateway currently dials: the default if it is absent. */
  readonly host: string;
  readonly port: number;
  /** What `spec.tls` and the scheme request; a named context may still be unusable. */
  readonly now: 'plaintext' | 'https' | 'context';
  readonly context: string | undefined;
  /** The number of pods behind it, and their ServiceAccounts. */
  readonly pods: number;
  readonly accounts: readonly Account[];
  /** The mesh that all of them are in; undefined: none, they differ, or it is unknown. */
  readonly membership: string | undefined;
  /** Why it cannot be served with the identity of a mesh, or why there is no single answer. */
  readonly problem: TargetRefusal | undefined;
}

interface UpstreamObjects {
  readonly namespaces: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
}

export function upstreamOf(mapping: KubeObject, world: UpstreamObjects, adapters: readonly Adapter[]): UpstreamFinding {
  const { service, tls, resolver } = mappingSpec(mapping);
  const address = parseService(service);
  const secure = tls !== undefined || address.scheme === 'https';
  const port = address.port ?? (secure ? 443 : 80);
  const base = {
    mapping,
    host: address.host,
    port,
    now: typeof tls === 'string' ? ('context' as const) : secure ? ('https' as const) : ('plaintext' as const),
    context: typeof tls === 'string' ? tls : undefined,
    pods: 0,
    accounts: [],
    membership: undefined,
  };
  const problem = (code: string, message: string): UpstreamFinding => ({ ...base, problem: { code, message } });
  if (address.errors.length > 0 && mapping.kind !== 'TCPMapping') {
    return problem('ERR_TARGET_SERVICE_SYNTAX', address.errors.join('; '));
  }
  const name = serviceNameOf(address.host, mapping.metadata.namespace ?? '');
  if ('code' in name) {
    const resolved = resolver === undefined ? '' : ` (its resolver is ${resolver})`;
    return problem(name.code, `${name.message}${resolved}`);
  }
  const answering = podsBehind(name, port, world);
  if ('code' in answering) return problem(answering.code, answering.message);
  const key = (pod: { readonly name: string; readonly namespace: string }) => `${pod.namespace}/${pod.name}`;
  const pods = new Map(
    world.pods.map((pod) => [key({ name: pod.metadata.name, namespace: pod.metadata.namespace ?? '' }), pod]),
  );
  const memberships = answering.map(({ workload }) => {
    const pod = pods.get(key(workload));
    return pod ? membershipsOf(pod, world, adapters) : [];
  });
  const accounts = new Map(
    answering.map(({ workload: { serviceAccount, namespace } }) => [
      `${namespace}/${serviceAccount}`,
      { serviceAccount, namespace },
    ]),
  );
  const found = { ...base, pods: answering.length, accounts: [...accounts.values()] };
  const kinds = new Set(memberships.map((each) => each.map(({ name }) => name).join('+')));
  const [only = ''] = kinds;
  if (kinds.size > 1 || only.includes('+')) {
    const list = [...kinds].map((one) => one || 'no mesh').join(', ');
    const message = `the pods behind it are not in one mesh: ${list}; finish the rollout of the sidecars first`;
    return { ...found, problem: { code: 'ERR_TARGET_DISAGREE', message } };
  }
  return { ...found, membership: only === '' ? undefined : only, problem: memberships[0]?.[0]?.refusal };
}

/** More than one is a pod between two meshes. */
function membershipsOf(pod: KubeObject, { namespaces }: UpstreamObjects, adapters: readonly Adapter[]): Membership[] {
  const namespace = namespaces.find(({ metadata }) => metadata.name === pod.metadata.namespace);
  return adapters.flatMap(({ pods }) => pods?.membership(pod, namespace) ?? []);
}
