import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { CONSENT_ANNOTATION, consents, withConsent } from '../core/consent.ts';
import { differences } from '../core/plan.ts';
import type {
  MeshView,
  ObservedObjects,
  RouteDestination,
  RouteTarget,
  RouteVerdict,
  StandInRequest,
} from '../gateway/gateway.ts';

import { ownerLabel } from '../gateway/publication.ts';
import { agentPodsOf, type TargetRules } from '../mesh/cluster.ts';
import {
  describe,
  FIELD_MANAGER,
  type Fields,
  fields,
  isKindOf,
  type KubeObject,
  keyOf,
  listOfFields,
  MANAGED_BY_LABEL,
  type ObjectRef,
  OWNER_LABEL,
  preconditionOf,
  refOf,
} from '../objects/objects.ts';
import type { OnboardableGateway, UpstreamFinding } from './discover.ts';
import { CREATED_LABELS, isOnboarded, MESH_LABEL, type OnboardSnapshot } from './snapshot.ts';

/** What a route is led to. */
interface MovesTo {
  /** The objects that stand in for its targets, and what they need. */
  readonly objects: readonly KubeObject[];
  /** Objects of the agent that exist before it is moved. */
  readonly needs: readonly ObjectRef[];
  readonly destinations: readonly RouteDestination[];
}

/** A route that can be moved. */
export interface Moving {
  readonly kind: 'move';
  readonly mesh: string;
  readonly target: RouteTarget;
  readonly move: Move;
  /** Absent: it names an object of the agent. */
  readonly to?: MovesTo;
}

/** The verdict on one route. */
export interface MoveVerdict<Outcome = MoveOutcome> {
  readonly upstream: UpstreamFinding;
  readonly outcome: Outcome;
}

type MoveOutcome =
  | Moving
  /** Its requests use the mesh's identity already, or will as soon as it is published. */
  | { readonly kind: 'done'; readonly mesh: string; readonly target: RouteTarget; readonly to?: MovesTo }
  | { readonly kind: 'stay'; readonly code: string; readonly message: string };

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

export const stays = (upstream: UpstreamFinding, code: string, message: string): MoveVerdict => ({
  upstream,
  outcome: { kind: 'stay', code, message },
});

/** Whether, how and into which mesh a route moves; judged by the agent's own rules. */
export function judge(upstream: UpstreamFinding, joined: readonly Joined[], snapshot: OnboardSnapshot): MoveVerdict {
  const { route, membership, problem } = upstream;
  const owner = joined.find((one) => wantsAlready(one, route, snapshot));
  if (owner)
    return owner.gateway.onboarding.standIns
      ? judgeBetween(owner, upstream, snapshot)
      : judgeBy(owner, upstream, snapshot);
  if (problem) return stays(upstream, problem.code, problem.message);
  if (membership === undefined) return stays(upstream, 'ERR_TARGET_UNMESHED', 'no pod behind it is in a mesh');
  const one = joined.find(({ mesh }) => mesh === membership);
  if (!one) return stays(upstream, 'ERR_TARGET_OTHER_MESH', notJoined(membership));
  const { onboarding } = one.gateway;
  const labels = labelsOf(one);
  const { name, namespace = '' } = one.certificate.metadata;
  if (!labels) {
    const { selector, route: title } = onboarding.wording;
    const message = `MeshCertificate ${name} has no ${selector}, so it changes no ${title}; add one`;
    return stays(upstream, 'ERR_TARGET_UNSELECTED', message);
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
  const [verdict] = verdictsOn(one, [route], snapshot);
  if (!verdict) {
    const { namespaces } = gateway.onboarding.wording;
    return stays(upstream, 'ERR_TARGET_UNSELECTED', `MeshCertificate ${name} would not select it; check ${namespaces}`);
  }
  const { outcome } = verdict;
  if ('code' in outcome) return stays(upstream, outcome.code, outcome.reason);
  const { target } = outcome;
  if (!preparation) return { upstream, outcome: { kind: 'done', mesh, target } };
  if (!willExist(one, target, snapshot)) {
    const message = `its ${target.object.kind} ${target.object.name} does not exist, and MeshCertificate ${name} was not created by onboard; list ${target.id} under its targets first`;
    return stays(upstream, 'ERR_TARGET_NOT_LISTED', message);
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
  const request = standInRequest(one, snapshot);
  if (!standIns || !request)
    return stays(upstream, 'ERR_TARGET_UNSELECTED', 'it is verified already, and stays as it is');
  const objects = standIns.objects([route], request);
  const ours = standInsOf(snapshot.gatewayObjects, gateway, request);
  const foreign = objects.find(
    (object) => exists(refOf(object), snapshot.gatewayObjects) && !exists(refOf(object), ours),
  );
  if (foreign) {
    const message = `${describe(refOf(foreign))} exists, and onboard did not create it; rename that object, or lead the route to it`;
    return stays(upstream, 'ERR_TARGET_NAME', message);
  }
  const named = objects.filter(({ kind }) => kind === standIns.resources[0]?.kind);
  const found = named.map((object) => ours.find((two) => keyOf(refOf(two)) === keyOf(refOf(object))) ?? object);
  const verdicts = verdictsOn(one, found, snapshot);
  const needs: RouteTarget[] = [];
  for (const { outcome, upstreams } of verdicts) {
    if ('code' in outcome) return stays(upstream, outcome.code, outcome.reason);
    if (upstreams) needs.push(outcome.target);
  }
  const [target] = needs;
  if (!target)
    return stays(upstream, 'ERR_TARGET_UNSELECTED', `it leads to nothing that MeshCertificate ${request.name} selects`);
  const to: MovesTo = {
    objects,
    needs: needs.map(({ object }) => object),
    destinations: verdicts.flatMap(({ upstreams = [] }) => upstreams),
  };
  const changes = standIns.redirected(route, request);
  if (!changes) return { upstream, outcome: { kind: 'done', mesh, target, to } };
  // It leads to some already, and to others since.
  const { problem, membership } = upstream;
  if (problem) return stays(upstream, problem.code, problem.message);
  if (membership !== mesh) return stays(upstream, 'ERR_TARGET_UNMESHED', 'not all pods behind it are in the mesh');
  const move: Move = { labels: {}, namespace: request.namespace, fields: changes, bare: true };
  return { upstream, outcome: { kind: 'move', mesh, target, move, to } };
}

/** On a route that was moved: its previous state, as JSON, for the way back. */
export const BEFORE_ANNOTATION = 'meshcert.dev/before';
/** Owns the changes to routes, and the objects that `onboard` applies. */
export const ONBOARD_FIELD_MANAGER = 'meshcert-onboard';

type Previous = Readonly<Record<string, string | null>>;

/** Labels and annotations, and beside them the fields of `spec`; absent: was not changed; null: was not there. */
interface Before {
  readonly labels?: Previous;
  readonly annotations?: Previous;
  readonly [field: string]: unknown;
}

interface Move {
  /** Labels by which the MeshCertificate selects it. */
  readonly labels: Readonly<Record<string, string>>;
  /** Namespace of the MeshCertificate, which the route allows when it is in another one. */
  readonly namespace: string;
  /** Fields of `spec`. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The gateway knows the way back, so nothing but these fields is written. */
  readonly bare?: boolean | undefined;
}

/**
 * The desired route: it changes from its previous state to mTLS in one write, with no intermediate state that the
 * gateway could read. Moving the same route again changes nothing.
 */
export function moved(route: KubeObject, { labels, namespace, fields: wanted, bare }: Move): KubeObject {
  const spec = fields(route.spec);
  const { metadata } = route;
  if (bare) return { ...route, spec: { ...spec, ...wanted } };
  const newLabels = Object.entries(labels).filter(([key, value]) => metadata.labels?.[key] !== value);
  const changed = Object.keys(wanted).filter((key) => !isDeepStrictEqual(spec[key], wanted[key]));
  const consent = consents(route, namespace)
    ? {}
    : { [CONSENT_ANNOTATION]: withConsent(metadata.annotations?.[CONSENT_ANNOTATION], namespace) };
  const before: Before = {
    ...Object.fromEntries(changed.map((key) => [key, spec[key] ?? null])),
    ...noted('labels', Object.fromEntries(newLabels.map(([key]) => [key, metadata.labels?.[key] ?? null]))),
    ...noted(
      'annotations',
      Object.fromEntries(Object.keys(consent).map((key) => [key, metadata.annotations?.[key] ?? null])),
    ),
  };
  if (Object.keys(before).length === 0) return route;
  const unchanged = beforeOf(route);
  const note = {
    ...before,
    ...unchanged,
    ...noted('labels', { ...before.labels, ...unchanged?.labels }),
    ...noted('annotations', { ...before.annotations, ...unchanged?.annotations }),
  };
  const annotations = { ...metadata.annotations, ...consent, [BEFORE_ANNOTATION]: JSON.stringify(note) };
  return {
    ...route,
    metadata: { ...metadata, labels: { ...metadata.labels, ...labels }, annotations },
    ...(Object.keys(wanted).length === 0 ? {} : { spec: { ...spec, ...wanted } }),
  };
}

/** Nothing if there is nothing to record. */
const noted = (field: 'labels' | 'annotations', values: Previous): Before =>
  Object.keys(values).length === 0 ? {} : { [field]: values };

/** The minimal content of a server-side apply that makes this change. Conditional on the version that was judged. */
export function movePatch(object: KubeObject, move: Move): KubeObject {
  const { apiVersion, kind, metadata, spec } = object;
  const { name, namespace, annotations } = metadata;
  const { labels } = move;
  const wanted = Object.keys(move.fields).map((key) => [key, fields(spec)[key]]);
  const consent = namespace === move.namespace ? undefined : annotations?.[CONSENT_ANNOTATION];
  return {
    apiVersion,
    kind,
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...preconditionOf(object),
      ...(move.bare ? {} : { labels, annotations: noteOf(annotations, consent) }),
    },
    ...(wanted.length === 0 ? {} : { spec: Object.fromEntries(wanted) }),
  };
}

const noteOf = (annotations: KubeObject['metadata']['annotations'], consent: string | undefined) => ({
  [BEFORE_ANNOTATION]: annotations?.[BEFORE_ANNOTATION] ?? '{}',
  ...(consent === undefined ? {} : { [CONSENT_ANNOTATION]: consent }),
});

/**
 * A merge patch that restores the state before the move, in one write; undefined for a route that was never moved.
 */
export function backPatch(route: KubeObject): Readonly<Record<string, unknown>> | undefined {
  const before = beforeOf(route);
  if (!before) return undefined;
  const { resourceVersion } = route.metadata;
  const { labels, annotations, ...spec } = before;
  return {
    metadata: {
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      annotations: { ...annotations, [BEFORE_ANNOTATION]: null },
      ...(labels ? { labels } : {}),
    },
    ...(Object.keys(spec).length > 0 ? { spec } : {}),
  };
}

/** The same for a route that was led to stand-ins; undefined: it leads to none of these. */
export function backFrom(
  standIns: readonly KubeObject[],
  route: KubeObject,
  { onboarding }: OnboardableGateway,
): Readonly<Record<string, unknown>> | undefined {
  const spec = onboarding.standIns?.restored(route, standIns);
  const { resourceVersion } = route.metadata;
  return spec && { ...(resourceVersion === undefined ? {} : { metadata: { resourceVersion } }), spec };
}

/** The route after that patch, for display. */
export function movedBack(route: KubeObject, patch = backPatch(route)): KubeObject {
  return patch ? (merged(route, patch) as KubeObject) : route;
}

function beforeOf({ metadata }: KubeObject): Before | undefined {
  const note = metadata.annotations?.[BEFORE_ANNOTATION];
  try {
    return note === undefined ? undefined : (fields(JSON.parse(note)) as Before);
  } catch {
    return undefined;
  }
}

/** RFC 7396. */
function merged(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> = { ...fields(target) };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value);
  }
  return result;
}

/** Namespace and name of a MeshCertificate, which may be gone, or of an agent. */
export interface CertificatePlace {
  readonly namespace: string;
  readonly name: string;
}

/** The gateway's own objects of one MeshCertificate. */
export const ownedBy = (
  objects: readonly KubeObject[],
  { onboarding }: OnboardableGateway,
  place: CertificatePlace,
): KubeObject[] =>
  objects.filter(
    (object) =>
      object.metadata.labels?.[OWNER_LABEL] === ownerLabel(place) &&
      onboarding
        .own(place)
        .some(
          ({ resource, namespace }) =>
            isKindOf(object)(resource) && (namespace === undefined || namespace === object.metadata.namespace),
        ),
  );

/** What `onboard` created for one MeshCertificate beside it, so that routes lead there. */
export const standInsOf = (
  objects: readonly KubeObject[],
  { onboarding }: OnboardableGateway,
  { namespace, name }: CertificatePlace,
): KubeObject[] =>
  objects.filter(
    (object) =>
      object.metadata.namespace === namespace &&
      isOnboarded(object) &&
      object.metadata.labels?.[MESH_LABEL] === name &&
      onboarding.standIns?.resources.some(isKindOf(object)),
  );

export const isRoute = (object: KubeObject, { onboarding }: OnboardableGateway): boolean =>
  onboarding.routes.some(isKindOf(object));

/** A label or an annotation of a tool that maintains the object, and what the tool is called. */
const TOOLS: readonly (readonly [key: string, tool: string])[] = [
  ['meta.helm.sh/release-name', 'Helm'],
  ['argocd.argoproj.io/tracking-id', 'Argo CD'],
  ['argocd.argoproj.io/instance', 'Argo CD'],
  ['kustomize.toolkit.fluxcd.io/name', 'Flux'],
  ['helm.toolkit.fluxcd.io/name', 'Flux'],
];
const APPLIED_ANNOTATION = 'kubectl.kubernetes.io/last-applied-configuration';

/** The tool that maintains this object, and would undo a change of it; undefined: none is known. */
export function toolOf({ metadata: { labels = {}, annotations = {} } }: KubeObject): string | undefined {
  const [, tool] = TOOLS.find(([key]) => key in labels || key in annotations) ?? [];
  if (tool !== undefined) return tool;
  return labels[MANAGED_BY_LABEL] === 'Helm' ? 'Helm' : undefined;
}

/**
 * Who created this object, or took it over since `onboard` created it; undefined: it is `onboard`'s alone. A label can be
 * copied, so the field manager counts too. A label or an annotation of others takes nothing over.
 */
export function holderOf(object: KubeObject): string | undefined {
  const { metadata } = object;
  const managers = metadata.managedFields ?? [];
  const tool = toolOf(object);
  if (tool !== undefined) return tool;
  if (metadata.annotations?.[APPLIED_ANNOTATION] !== undefined) return 'kubectl apply';
  // A platform adds pull secrets to every ServiceAccount.
  const isShared = object.kind === 'ServiceAccount';
  const others = managers.filter(
    ({ manager, operation, subresource, fieldsV1 = {} }) =>
      subresource === undefined &&
      !manager.startsWith(FIELD_MANAGER) &&
      !isShared &&
      (operation === 'Apply' || hasContent(fieldsV1)),
  );
  const created = managers.some(({ manager, operation }) => manager === ONBOARD_FIELD_MANAGER && operation === 'Apply');
  const [other] = others;
  if (other) return `field manager ${other.manager}`;
  return created && isOnboarded(object) ? undefined : 'another client';
}

/** Whether a `fieldsV1` set has fields beside labels and annotations, which `kubectl rollout restart` sets too. */
const hasContent = (set: Readonly<Record<string, unknown>>): boolean =>
  Object.entries(set).some(([token, below]) => {
    if (token === 'f:metadata') return false;
    const inner = fields(below);
    return Object.keys(inner).length === 0 || hasContent(inner);
  });

const sameAccount = (subject: unknown, agent: CertificatePlace): boolean => {
  const { kind, name, namespace } = fields(subject);
  return kind === 'ServiceAccount' && name === agent.name && namespace === agent.namespace;
};

const isBinding = ({ kind }: KubeObject): boolean => kind.endsWith('Binding');

/** Whether a binding is for this agent and for nobody else. */
const bindsOnly = ({ subjects }: KubeObject, agent: CertificatePlace): boolean =>
  Array.isArray(subjects) && subjects.length > 0 && subjects.every((subject) => sameAccount(subject, agent));

const bindingsTo = ({ kind, metadata }: KubeObject, bindings: readonly KubeObject[]): KubeObject[] =>
  bindings.filter(({ roleRef, metadata: { namespace } }) => {
    const ref = fields(roleRef);
    return (
      ref.kind === kind && ref.name === metadata.name && (kind === 'ClusterRole' || namespace === metadata.namespace)
    );
  });

/** Rights of one agent among the Roles and bindings of a cluster. */
export interface AgentRights {
  /** What `onboard` created, nobody took over, and only this agent uses; bindings first. */
  readonly own: readonly KubeObject[];
  /** What `onboard` created for this agent and has to leave, each with the reason. */
  readonly left: readonly { readonly object: KubeObject; readonly why: string }[];
}

/** `rights` have the label of `onboard`; `bindings` are all that may name one of these Roles. */
export function rightsOf(
  agent: CertificatePlace,
  rights: readonly KubeObject[],
  bindings: readonly KubeObject[],
): AgentRights {
  const isNamed = ({ metadata }: KubeObject) => metadata.name === rightsName(agent.namespace);
  const own: KubeObject[] = [];
  const left: { object: KubeObject; why: string }[] = [];
  for (const object of [...rights].sort((a, b) => Number(isBinding(b)) - Number(isBinding(a)))) {
    const users = isBinding(object) ? [object] : bindingsTo(object, bindings);
    const others = users.filter((one) => !bindsOnly(one, agent));
    // Earlier versions gave all agents the same names: who is bound says whose rights they are.
    const isOurs =
      isNamed(object) || users.some(({ subjects }) => [subjects].flat().some((s) => sameAccount(s, agent)));
    if (!isOurs) continue;
    const holder = holderOf(object);
    if (holder !== undefined) left.push({ object, why: `${holder} has taken it over` });
    else if (others.length > 0) {
      const who = others.flatMap(({ subjects }) => [subjects].flat().filter((one) => !sameAccount(one, agent)));
      left.push({ object, why: `it is also for ${who.map(describeSubject).join(', ')}` });
    } else own.push(object);
  }
  return { own, left };
}

/** The name of all Roles and bindings that `onboard` creates for the agent of a namespace. */
export const rightsName = (namespace: string): string => `${ONBOARD_FIELD_MANAGER}.${namespace}`;

const describeSubject = (subject: unknown): string => {
  const { kind, name, namespace } = fields(subject);
  return `${String(kind)} ${namespace === undefined ? '' : `${String(namespace)}/`}${String(name)}`;
};

/** Whether an object that somebody else maintains does what this one is for, so that it can be used as it is. */
export function suffices(wanted: KubeObject, observed: KubeObject): boolean {
  if (wanted.kind === 'ServiceAccount' || wanted.kind === 'CustomResourceDefinition') return true;
  if (wanted.kind === 'Deployment') return agentPodsOf([observed]).length > 0;
  if (isBinding(wanted)) {
    const { subjects = [] } = wanted;
    const has = (subject: unknown) =>
      [observed.subjects].flat().some((one) => describeSubject(one) === describeSubject(subject));
    return isDeepStrictEqual(fields(observed.roleRef), fields(wanted.roleRef)) && [subjects].flat().every(has);
  }
  if (wanted.rules !== undefined) return listOfFields(wanted.rules).every((rule) => isGranted(rule, observed.rules));
  const { labels: _, ...metadata } = wanted.metadata;
  return differences({ ...wanted, metadata }, observed).length === 0;
}

/** Whether each single right of this rule is in one of those. */
function isGranted(rule: Fields, rules: unknown): boolean {
  const strings = (value: unknown): readonly string[] => (Array.isArray(value) ? value.map(String) : []);
  const all = listOfFields(rules);
  const allows = (list: unknown, value: string) => strings(list).some((one) => one === value || one === '*');
  const namesOf = (one: Fields) => strings(one.resourceNames);
  const names = namesOf(rule).length === 0 ? [undefined] : namesOf(rule);
  return strings(rule.apiGroups).every((group) =>
    strings(rule.resources).every((resource) =>
      strings(rule.verbs).every((verb) =>
        names.every((name) =>
          all.some(
            (one) =>
              allows(one.apiGroups, group) &&
              allows(one.resources, resource) &&
              allows(one.verbs, verb) &&
              (namesOf(one).length === 0 || (name !== undefined && namesOf(one).includes(name))),
          ),
        ),
      ),
    ),
  );
}

/** The object as it was judged, or a conflict. Of one with a status, which changes by itself, only the same object. */
export function withVersion(object: KubeObject, observed: KubeObject): KubeObject {
  const { resourceVersion, ...same } = preconditionOf(observed);
  const isSteady = observed.status === undefined && resourceVersion !== undefined;
  return { ...object, metadata: { ...object.metadata, ...same, ...(isSteady && { resourceVersion }) } };
}
