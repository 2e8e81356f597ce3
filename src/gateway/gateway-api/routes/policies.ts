import { describe, type KubeObject, keyOf, OWNER_LABEL, refOf } from '../../../core/object.ts';
import { fields, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { PeerName, TargetRefusal } from '../../../mesh/targeting.ts';
import type { ObservedObjects, RouteDestination, RouteVerdict } from '../../gateway.ts';
import type { RouteInput } from '../../input.ts';
import { ownerLabel } from '../../owner.ts';
import { policyRef } from '../objects/names.ts';
import type { GatewayApiConfig } from '../spec/config.ts';
import { CORE_RESOURCES as CORE, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { GatewayApiRefusal, PolicyTarget } from '../spec/target.ts';
import type { BehindServices, Peers } from './pods.ts';
import { type Usage, type UsedTarget, usage } from './usage.ts';

/** What all Services and Backends of one observation have in common. */
export interface PolicySituation {
  readonly input: RouteInput<GatewayApiConfig>;
  readonly observed: ObservedObjects;
  /** Our policies as they are now, by `keyOf`. */
  readonly written: ReadonlyMap<string, PolicyTarget>;
  readonly isUsed: Usage;
}

/** What one policy is for, and the verdict on it; without a target, none is written. */
export interface PolicyJudgement {
  readonly verdict: RouteVerdict;
  readonly target?: PolicyTarget | undefined;
}

export function situationOf(input: RouteInput<GatewayApiConfig>, observed: ObservedObjects): PolicySituation {
  const written = new Map(
    observed.own.flatMap((one) => {
      const target = policyTarget(one);
      return target ? [[keyOf(refOf(one)), target] as const] : [];
    }),
  );
  return { input, observed, written, isUsed: usage(input, observed) };
}

/** What one of our policies is for, and what it requires; undefined: not of our making. */
export function policyTarget({ kind, metadata, spec }: KubeObject): PolicyTarget | undefined {
  const [ref] = listOfFields(fields(spec).targetRefs);
  const { hostname, subjectAltNames } = fields(fields(spec).validation);
  const [of, name, port = '', host] = [ref?.kind, text(ref?.name), text(ref?.sectionName), text(hostname)];
  if (kind !== KINDS.policies.kind || !name || !host || (of !== 'Service' && of !== 'Backend')) return undefined;
  if (of === 'Service' && port === '') return undefined;
  const names = listOfFields(subjectAltNames).map(
    ({ uri, hostname: dns }): PeerName => (text(uri) ? { uri: String(uri) } : { dns: String(dns) }),
  );
  return { kind: 'policy', namespace: metadata.namespace ?? '', of, name, port, hostname: host, names };
}

/** Our policy for it, if there is one. */
export const writtenFor = (
  { input, written }: PolicySituation,
  target: UsedTarget & Pick<PolicyTarget, 'port'>,
): PolicyTarget | undefined => written.get(keyOf(policyRef(input, target)));

/** A policy of somebody else for this target, or for all of its ports, which ours would override; why ours is not written. */
export function foreignPolicy(
  { input, observed }: PolicySituation,
  { of, namespace, name, port }: UsedTarget & Pick<PolicyTarget, 'port'>,
): TargetRefusal | undefined {
  const owner = ownerLabel(input.meta);
  const theirs = observed
    .behind(KINDS.policies.kind)
    .find(
      (policy) =>
        policy.metadata.namespace === namespace &&
        policy.metadata.labels?.[OWNER_LABEL] !== owner &&
        listOfFields(fields(policy.spec).targetRefs).some(
          (ref) =>
            ref.kind === of &&
            ref.name === name &&
            (ref.sectionName === undefined || of === 'Backend' || ref.sectionName === port),
        ),
    );
  if (!theirs) return undefined;
  const message = `${describe(refOf(theirs))} is already for it, and was not written for this MeshCertificate; do not select this ${of}, or move its routes away, remove that policy, and move them back when the agent has written its own (without a policy, requests can be in plaintext)`;
  return { code: 'ERR_TARGET_FOREIGN_POLICY', message };
}

/** Why no policy can be written at all. */
export function unservedKind(unserved: ReadonlySet<string>): GatewayApiRefusal | undefined {
  const absent = [KINDS.policies, KINDS.gateways].find(({ kind }) => unserved.has(kind));
  if (!absent) return undefined;
  const message = `the cluster does not serve ${absent.apiVersion} ${absent.kind}; install the Gateway API, version 1.4 or later`;
  return { code: 'ERR_GATEWAY_CRD_MISSING', message };
}

/** Why the objects of these kinds in a namespace are not known. */
export function unseen(
  { observed }: PolicySituation,
  namespace: string,
  resources: readonly { readonly kind: string; readonly plural: string }[],
): TargetRefusal | undefined {
  for (const { kind, plural } of resources) {
    const why = observed.hidden(kind, namespace);
    if (why === undefined) continue;
    const message = `the ${plural} in namespace ${namespace} cannot be read yet (${why}); the agent needs get, list and watch on them there`;
    return { code: 'ERR_TARGET_UNSEEN', message };
  }
  return undefined;
}

/** The pods and EndpointSlices of a namespace. */
export function behindServices({ observed }: PolicySituation, namespace: string): BehindServices {
  const inPlace = (kind: string) => observed.behind(kind).filter(({ metadata }) => metadata.namespace === namespace);
  return { pods: inPlace(CORE.pods.kind), slices: inPlace(CORE.endpointSlices.kind) };
}

/**
 * The verdict on a Service or a Backend with regard to its policy; `port`: as a route would give it; `found`: everything
 * that the gateway connects to, or why it has no policy.
 */
export function policyVerdict(
  route: KubeObject,
  target: UsedTarget & Pick<PolicyTarget, 'port'>,
  port: number | undefined,
  { input, written, isUsed }: PolicySituation,
  found: TargetRefusal | readonly RouteDestination[],
): RouteVerdict {
  const object = policyRef(input, target);
  const exists = written.has(keyOf(object));
  const common = {
    route,
    service: target.port === '' ? target.name : `${target.name}:${target.port}`,
    selected: true,
    uses: exists ? object.name : undefined,
    dependsOn: exists && isUsed(target, port) ? object : undefined,
  };
  if (!('code' in found)) return { ...common, upstreams: found, outcome: { target: { object, isSet: exists } } };
  const { code, message } = found;
  return { ...common, outcome: { code, message: `${describe(refOf(route))} cannot use the certificate: ${message}` } };
}

/** Where the gateway connects to, and whom it accepts there. */
export const destinationOf = (
  address: string,
  { hostname, names }: Peers,
  service: RouteDestination['service'],
): RouteDestination => ({
  address,
  sni: hostname,
  service,
  names: names.length > 0 ? names : [{ dns: hostname }],
});

/** A policy that is used although nothing selects its target any more. */
export function kept(
  route: KubeObject,
  target: PolicyTarget,
  port: number | undefined,
  situation: PolicySituation,
): PolicyJudgement {
  const message =
    'a route uses it with a BackendTLSPolicy of the agent, but the MeshCertificate no longer selects it; select it, or remove the route and then the policy';
  const refusal = { code: 'ERR_TARGET_UNSELECTED', message };
  return { verdict: { ...policyVerdict(route, target, port, situation, refusal), selected: false }, target };
}
