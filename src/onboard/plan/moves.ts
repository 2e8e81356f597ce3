import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { type KubeObject, keyOf, type ObjectRef, refOf } from '../../core/object.ts';
import type { ObservedObjects, RouteTarget, RouteVerdict } from '../../gateway/gateway.ts';
import { fields } from '../../mesh/kube-object.ts';
import type { TargetRules } from '../../mesh/targeting.ts';
import type { OnboardableGateway } from '../discover/gateway.ts';
import type { UpstreamFinding } from '../discover/upstream.ts';
import { type Move, moved } from './moved.ts';
import { ownedBy } from './owned.ts';
import type { OnboardSnapshot } from './snapshot.ts';

/** The verdict on one route. */
export interface MoveVerdict {
  readonly upstream: UpstreamFinding;
  readonly outcome: /** Its requests use the mesh's identity already, or will as soon as it is published. */
    | { readonly kind: 'done'; readonly mesh: string; readonly target: RouteTarget }
    | { readonly kind: 'move'; readonly mesh: string; readonly target: RouteTarget; readonly move: Move }
    | { readonly kind: 'stay'; readonly code: string; readonly message: string };
}

/** A mesh that the gateway is to join, as it will be configured. */
export interface Joined {
  readonly mesh: string;
  readonly gateway: OnboardableGateway;
  readonly certificate: MeshCertificate;
  /** The document that is applied; absent if a MeshCertificate exists that was not made here. */
  readonly document?: KubeObject | undefined;
  readonly rules: TargetRules | undefined;
}

/** Whether, how and into which mesh a route moves; judged by the agent's own rules. */
export function judge(upstream: UpstreamFinding, joined: readonly Joined[], snapshot: OnboardSnapshot): MoveVerdict {
  const { route, membership, problem } = upstream;
  const stay = (code: string, message: string): MoveVerdict => ({ upstream, outcome: { kind: 'stay', code, message } });
  const owner = joined.find((one) => wantsAlready(one, route, snapshot));
  if (owner) return judgeBy(owner, upstream, snapshot);
  if (problem) return stay(problem.code, problem.message);
  if (membership === undefined) return stay('ERR_TARGET_UNMESHED', 'no pod behind it is in a mesh');
  const one = joined.find(({ mesh }) => mesh === membership);
  if (!one) return stay('ERR_TARGET_OTHER_MESH', notJoined(membership));
  const { onboarding } = one.gateway;
  const config = configOf(one);
  const labels = config === undefined ? undefined : onboarding.selector(config);
  const { name, namespace = '' } = one.certificate.metadata;
  if (!labels) {
    const { selector, route: title } = onboarding.wording;
    const message = `MeshCertificate ${name} has no ${selector}, so it changes no ${title}; add one`;
    return stay('ERR_TARGET_UNSELECTED', message);
  }
  return judgeBy(one, upstream, snapshot, { labels, namespace, fields: onboarding.preparation(route) });
}

const notJoined = (mesh: string): string =>
  `its pods are in ${mesh}, which is not joined here; add --mesh ${mesh}, or check that its control plane was found`;

const configOf = ({ gateway, certificate }: Joined): unknown => certificate.spec.gateways[gateway.kind];

/** Uses an object of ours, or is selected, before any move: the agent or the user maintains it. */
function wantsAlready(one: Joined, route: KubeObject, snapshot: OnboardSnapshot): boolean {
  const verdict = verdictOn(one, route, snapshot);
  if (!verdict) return false;
  const { name, namespace = '' } = one.certificate.metadata;
  const own = ownedBy(snapshot.gatewayObjects, one.gateway, { namespace, name });
  return verdict.selected || exists(verdict.dependsOn, own);
}

function verdictOn(one: Joined, route: KubeObject, snapshot: OnboardSnapshot): RouteVerdict | undefined {
  const { gateway, certificate, rules } = one;
  const config = configOf(one);
  if (config === undefined) return undefined;
  const { name, namespace = '', uid } = certificate.metadata;
  const meta = { name, namespace, uid };
  const all = [...snapshot.gatewayObjects, ...snapshot.endpointSlices, ...snapshot.pods];
  const observed: ObservedObjects = {
    routes: [route],
    own: ownedBy(snapshot.gatewayObjects, gateway, meta),
    behind: (kind) => all.filter((object) => object.kind === kind),
    unseen: new Map(),
    hidden: () => undefined,
    unserved: new Set(),
  };
  return gateway.routes.judge({ meta, spec: certificate.spec, config, rules }, observed).verdicts[0];
}

const exists = (ref: ObjectRef | undefined, objects: readonly KubeObject[]): boolean =>
  ref !== undefined && objects.some((object) => keyOf(refOf(object)) === keyOf(ref));

/** A route moves only to an object that exists by then. */
function willExist({ gateway, document, rules }: Joined, target: RouteTarget, snapshot: OnboardSnapshot): boolean {
  if (!gateway.onboarding.objectsFirst || document || !rules) return true;
  return rules.listed.some(({ id }) => id === target.id) || exists(target.object, snapshot.gatewayObjects);
}

/** `preparation` is what the route gets beside the change that the gateway itself requests; absent: it is not moved. */
function judgeBy(one: Joined, upstream: UpstreamFinding, snapshot: OnboardSnapshot, preparation?: Move): MoveVerdict {
  const { mesh, certificate, gateway } = one;
  const { name } = certificate.metadata;
  const route = preparation ? moved(upstream.route, preparation) : upstream.route;
  const stay = (code: string, message: string): MoveVerdict => ({ upstream, outcome: { kind: 'stay', code, message } });
  const verdict = verdictOn(one, route, snapshot);
  if (!verdict) {
    const { namespaces } = gateway.onboarding.wording;
    return stay('ERR_TARGET_UNSELECTED', `MeshCertificate ${name} would not select it; check ${namespaces}`);
  }
  const { outcome } = verdict;
  if ('code' in outcome) {
    return stay(outcome.code, outcome.message.replace(/^\S+ \S+ cannot use the certificate: /, ''));
  }
  const { target } = outcome;
  if (!preparation) return { upstream, outcome: { kind: 'done', mesh, target } };
  if (!willExist(one, target, snapshot)) {
    const message = `its ${target.object.kind} ${target.object.name} does not exist, and MeshCertificate ${name} was not created by onboard; list ${target.id} under its targets first`;
    return stay('ERR_TARGET_NOT_LISTED', message);
  }
  const move = { ...preparation, fields: { ...preparation.fields, ...fields(target.change?.fields.spec) } };
  return { upstream, outcome: { kind: 'move', mesh, target, move } };
}
