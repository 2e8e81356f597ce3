import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, keyOf, type ObjectRef, refOf } from '../../core/object.ts';
import type { ObservedObjects, RouteDestination, RouteTarget, RouteVerdict } from '../../gateway/gateway.ts';
import type { MeshView } from '../../gateway/input.ts';
import type { StandInRequest } from '../../gateway/onboarding.ts';
import { fields } from '../../mesh/kube-object.ts';
import type { TargetRules } from '../../mesh/targeting.ts';
import type { OnboardableGateway } from '../discover/gateway.ts';
import type { UpstreamFinding } from '../discover/upstream.ts';
import { CREATED_LABELS, MESH_LABEL } from './document.ts';
import { type Move, moved } from './moved.ts';
import { ownedBy, standInsOf } from './owned.ts';
import type { OnboardSnapshot } from './snapshot.ts';

/** What a route is led to. */
export interface MovesTo {
  /** The objects that stand in for its targets, and what they need. */
  readonly objects: readonly KubeObject[];
  /** Objects of the agent that exist before it is moved. */
  readonly needs: readonly ObjectRef[];
  readonly destinations: readonly RouteDestination[];
}

/** The verdict on one route. */
export interface MoveVerdict {
  readonly upstream: UpstreamFinding;
  readonly outcome: /** Its requests use the mesh's identity already, or will as soon as it is published. */
    | { readonly kind: 'done'; readonly mesh: string; readonly target: RouteTarget; readonly to?: MovesTo }
    | {
        readonly kind: 'move';
        readonly mesh: string;
        readonly target: RouteTarget;
        readonly move: Move;
        /** Absent: it names an object of the agent. */
        readonly to?: MovesTo;
      }
    | { readonly kind: 'stay'; readonly code: string; readonly message: string };
}

/** A mesh that the gateway is to join, as it will be configured. */
export interface Joined {
  readonly mesh: string;
  readonly gateway: OnboardableGateway;
  readonly certificate: MeshCertificate;
  readonly view: MeshView;
  /** The document that is applied; absent if a MeshCertificate exists that was not made here. */
  readonly document?: KubeObject | undefined;
  readonly rules: TargetRules | undefined;
}

/** Whether, how and into which mesh a route moves; judged by the agent's own rules. */
export function judge(upstream: UpstreamFinding, joined: readonly Joined[], snapshot: OnboardSnapshot): MoveVerdict {
  const { route, membership, problem } = upstream;
  const stay = (code: string, message: string): MoveVerdict => ({ upstream, outcome: { kind: 'stay', code, message } });
  const owner = joined.find((one) => wantsAlready(one, route, snapshot));
  if (owner)
    return owner.gateway.onboarding.standIns
      ? judgeBetween(owner, upstream, snapshot)
      : judgeBy(owner, upstream, snapshot);
  if (problem) return stay(problem.code, problem.message);
  if (membership === undefined) return stay('ERR_TARGET_UNMESHED', 'no pod behind it is in a mesh');
  const one = joined.find(({ mesh }) => mesh === membership);
  if (!one) return stay('ERR_TARGET_OTHER_MESH', notJoined(membership));
  const { onboarding } = one.gateway;
  const labels = labelsOf(one);
  const { name, namespace = '' } = one.certificate.metadata;
  if (!labels) {
    const { selector, route: title } = onboarding.wording;
    const message = `MeshCertificate ${name} has no ${selector}, so it changes no ${title}; add one`;
    return stay('ERR_TARGET_UNSELECTED', message);
  }
  if (onboarding.standIns) return judgeBetween(one, upstream, snapshot);
  return judgeBy(one, upstream, snapshot, { labels, namespace, fields: onboarding.preparation(route) });
}

const notJoined = (mesh: string): string =>
  `its pods are in ${mesh}, which is not joined here; add --mesh ${mesh}, or check that its control plane was found`;

/** The labels by which the MeshCertificate selects; undefined: by none. */
function labelsOf(one: Joined): Readonly<Record<string, string>> | undefined {
  const config = configOf(one);
  return config === undefined ? undefined : one.gateway.onboarding.selector(config);
}

const configOf = ({ gateway, certificate }: Joined): unknown => certificate.spec.gateways[gateway.kind];

/** Uses an object of ours, or is selected, before any move: the agent or the user maintains it. */
function wantsAlready(one: Joined, route: KubeObject, snapshot: OnboardSnapshot): boolean {
  const { name, namespace = '' } = one.certificate.metadata;
  const own = ownedBy(snapshot.gatewayObjects, one.gateway, { namespace, name });
  const { onboarding } = one.gateway;
  if (onboarding.standIns) {
    const { gatewayObjects } = snapshot;
    return onboarding.uses(
      route,
      [...own, ...standInsOf(gatewayObjects, one.gateway, { namespace, name })],
      gatewayObjects,
    );
  }
  const [verdict] = verdictsOn(one, [route], snapshot);
  return verdict !== undefined && (verdict.selected || exists(verdict.dependsOn, own));
}

function verdictsOn(one: Joined, routes: readonly KubeObject[], snapshot: OnboardSnapshot): readonly RouteVerdict[] {
  const { gateway, certificate, rules, view: mesh } = one;
  const config = configOf(one);
  if (config === undefined) return [];
  const { name, namespace = '', uid } = certificate.metadata;
  const meta = { name, namespace, uid };
  const all = [...snapshot.gatewayObjects, ...snapshot.endpointSlices, ...snapshot.pods];
  const observed: ObservedObjects = {
    routes,
    own: ownedBy(snapshot.gatewayObjects, gateway, meta),
    behind: (kind) => all.filter((object) => object.kind === kind),
    unseen: new Map(),
    hidden: () => undefined,
    unserved: snapshot.unserved,
  };
  return gateway.routes.judge({ meta, spec: certificate.spec, config, rules, mesh }, observed).verdicts;
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
  const [verdict] = verdictsOn(one, [route], snapshot);
  if (!verdict) {
    const { namespaces } = gateway.onboarding.wording;
    return stay('ERR_TARGET_UNSELECTED', `MeshCertificate ${name} would not select it; check ${namespaces}`);
  }
  const { outcome } = verdict;
  if ('code' in outcome) {
    return stay(outcome.code, reasonIn(outcome.message));
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

/** What stands in for targets of routes of this MeshCertificate; undefined: it selects none. */
export function standInRequest(one: Joined, objects: OnboardSnapshot): StandInRequest | undefined {
  const { name, namespace = '' } = one.certificate.metadata;
  const { secretName } = one.certificate.spec;
  const labels = labelsOf(one);
  return (
    labels && { namespace, name, secretName, labels: { ...labels, [MESH_LABEL]: name, ...CREATED_LABELS }, objects }
  );
}

/** The stand-ins are judged, as the agent will judge them once they exist. */
function judgeBetween(one: Joined, upstream: UpstreamFinding, snapshot: OnboardSnapshot): MoveVerdict {
  const { mesh, gateway } = one;
  const { route } = upstream;
  const { standIns } = gateway.onboarding;
  const stay = (code: string, message: string): MoveVerdict => ({ upstream, outcome: { kind: 'stay', code, message } });
  const request = standInRequest(one, snapshot);
  if (!standIns || !request) return stay('ERR_TARGET_UNSELECTED', 'it is verified already, and stays as it is');
  const objects = standIns.objects([route], request);
  const ours = standInsOf(snapshot.gatewayObjects, gateway, request);
  const foreign = objects.find(
    (object) => exists(refOf(object), snapshot.gatewayObjects) && !exists(refOf(object), ours),
  );
  if (foreign) {
    const message = `${describe(refOf(foreign))} exists, and onboard did not create it; rename that object, or lead the route to it`;
    return stay('ERR_TARGET_NAME', message);
  }
  const named = objects.filter(({ kind }) => kind === standIns.resources[0]?.kind);
  const found = named.map((object) => ours.find((two) => keyOf(refOf(two)) === keyOf(refOf(object))) ?? object);
  const verdicts = verdictsOn(one, found, snapshot);
  const needs: RouteTarget[] = [];
  for (const { outcome, upstreams } of verdicts) {
    if ('code' in outcome) return stay(outcome.code, reasonIn(outcome.message));
    if (upstreams) needs.push(outcome.target);
  }
  const [target] = needs;
  if (!target) return stay('ERR_TARGET_UNSELECTED', `it leads to nothing that MeshCertificate ${request.name} selects`);
  const to: MovesTo = {
    objects,
    needs: needs.map(({ object }) => object),
    destinations: verdicts.flatMap(({ upstreams = [] }) => upstreams),
  };
  const changes = standIns.redirected(route, request);
  if (!changes) return { upstream, outcome: { kind: 'done', mesh, target, to } };
  // It leads to some already, and to others since.
  const { problem, membership } = upstream;
  if (problem) return stay(problem.code, problem.message);
  if (membership !== mesh) return stay('ERR_TARGET_UNMESHED', 'not all pods behind it are in the mesh');
  const move: Move = { labels: {}, namespace: request.namespace, fields: changes, bare: true };
  return { upstream, outcome: { kind: 'move', mesh, target, move, to } };
}

const reasonIn = (message: string): string => message.replace(/^\S+ \S+ cannot use the certificate: /, '');
