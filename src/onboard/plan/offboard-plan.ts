import { describe, type KubeObject, keyOf, type ObjectRef, OWNER_LABEL, refOf } from '../../core/object.ts';
import { differences } from '../../core/plan/difference.ts';
import { type Gateway, gatewayOf } from '../../gateway/gateway.ts';
import { agentPodsOf } from '../../mesh/agent-pod.ts';
import { fields, listOfFields, text } from '../../mesh/kube-object.ts';
import { type OnboardableGateway, onboardable } from '../discover/gateway.ts';
import { meant } from './choice.ts';
import { type DiffLine, diffObjects } from './diff.ts';
import { isOnboarded, MESH_LABEL } from './document.ts';
import { OnboardError } from './error.ts';
import { AGENT_NAME } from './grants.ts';
import { BEFORE_ANNOTATION, backFrom, movedBack } from './moved.ts';
import {
  type AgentRights,
  type CertificatePlace,
  holderOf,
  isRoute,
  ownedBy,
  rightsName,
  rightsOf,
  standInsOf,
  withVersion,
} from './owned.ts';
import type { OnboardSnapshot } from './snapshot.ts';

/** A route that uses an object of ours. */
export interface RouteInUse {
  readonly route: KubeObject;
  readonly gateway: OnboardableGateway;
}

/**
 * How a route stops using the mesh: restored to its state before `onboard`, led to where it led before, or by
 * withdrawing the agent's change.
 */
export interface RouteRelease extends RouteInUse {
  readonly how: 'restore' | 'lead back' | 'withdraw';
  readonly diff: readonly DiffLine[];
}

/** One MeshCertificate to delete, or the leftovers of one that is already gone. */
export interface Leaving {
  readonly namespace: string;
  readonly name: string;
  readonly certificate: KubeObject | undefined;
  readonly releases: readonly RouteRelease[];
  /** Routes whose use of our object was set by somebody else, who alone can end it. */
  readonly inUse: readonly RouteInUse[];
  /** What `onboard` created for routes to lead to. */
  readonly standIns: readonly KubeObject[];
  /** The gateways' objects. */
  readonly objects: readonly ObjectRef[];
  /** Only with `deletionPolicy: Delete`, and only those that the agent recorded as its own; `uid` of such a Secret. */
  readonly secrets: readonly OwnedRef[];
  /** Objects of somebody else's that name one of these Secrets. */
  readonly naming: readonly KubeObject[];
}

export interface OwnedRef extends ObjectRef {
  readonly uid?: string | undefined;
}

/** One object that `onboard` created for the agent. */
export interface GrantStep {
  readonly action: 'change' | 'delete';
  /** As it will be, or as it was observed. */
  readonly object: KubeObject;
}

/** What becomes of the objects that `onboard` created for the agent. */
export interface Grants {
  readonly steps: readonly GrantStep[];
  /** What stays although nothing needs it any more, and why. */
  readonly left: AgentRights['left'];
}

export interface OffboardPlan {
  readonly leaving: readonly Leaving[];
  readonly grants: Grants;
}

/** What the agent of a namespace has, beside its rights, and what it needs. */
export interface AgentObjects {
  /** What the MeshCertificates that stay need; undefined: one of them is not understood, so nothing is taken away. */
  needed(staying: readonly string[]): readonly KubeObject[] | undefined;
  /** Its Deployment, its account and that of the gateway, as observed. */
  readonly observed: readonly KubeObject[];
  readonly lease: KubeObject | undefined;
}

/** Which MeshCertificates are deleted, and in what order their dependents are released. Pure. */
export function planOffboarding(
  snapshot: OnboardSnapshot,
  namespace: string,
  names: readonly string[],
  agent: AgentObjects,
  gateways: readonly Gateway[],
): OffboardPlan {
  const kinds = onboardable(gateways);
  const certificates = snapshot.meshCertificates.filter(({ metadata }) => metadata.namespace === namespace);
  const known = new Set(certificates.map(({ metadata }) => metadata.name));
  for (const name of orphans(snapshot, namespace, kinds)) known.add(name);
  for (const name of names) {
    if (known.has(name)) continue;
    const message = `no MeshCertificate "${name}" in namespace ${namespace}${meant(name, [...known])}`;
    throw new OnboardError('ERR_ONBOARD_UNKNOWN_NAME', message);
  }
  const going = [...known].filter((name) => names.length === 0 || names.includes(name)).sort();
  const rest = [...known].filter((name) => !going.includes(name));
  return {
    leaving: going.map((name) => leavingOf(snapshot, { namespace, name }, kinds)),
    grants: rest.length > 0 ? narrowed(snapshot, namespace, agent.needed(rest)) : withdrawn(snapshot, namespace, agent),
  };
}

/** Rights that the MeshCertificates which stay do not need. */
function narrowed(
  { rights, bindings }: OnboardSnapshot,
  namespace: string,
  needed: readonly KubeObject[] | undefined,
): Grants {
  if (!needed) return { steps: [], left: [] };
  const wanted = new Map(needed.map((object) => [keyOf(refOf(object)), object]));
  // What an earlier version created has another name, and is replaced by onboard.
  const own = rightsOf({ name: AGENT_NAME, namespace }, rights, bindings).own.filter(
    ({ metadata }) => metadata.name === rightsName(namespace),
  );
  const steps = own.flatMap((object): GrantStep[] => {
    const next = wanted.get(keyOf(refOf(object)));
    if (!next) return [{ action: 'delete', object }];
    if (differences(next, object).length === 0) return [];
    return [{ action: 'change', object: withVersion(next, object) }];
  });
  return { steps, left: [] };
}

/** Everything, in the order in which the agent ends: the agent, its rights, its account, its Lease. */
function withdrawn(snapshot: OnboardSnapshot, namespace: string, { observed, lease }: AgentObjects): Grants {
  const rights = rightsOf({ name: AGENT_NAME, namespace }, snapshot.rights, snapshot.bindings);
  const created = observed.filter(isOnboarded).map((object) => ({ object, holder: holderOf(object) }));
  const own = created.flatMap(({ object, holder }) => (holder === undefined ? [object] : []));
  const left = created.flatMap(({ object, holder }) =>
    holder === undefined ? [] : [{ object, why: `${holder} has taken it over` }],
  );
  const gone = new Set(own.map((object) => keyOf(refOf(object))));
  // Another agent of this namespace may hold the Lease.
  const remains = agentPodsOf(snapshot.workloads).some(
    ({ workload }) => workload.metadata.namespace === namespace && !gone.has(keyOf(refOf(workload))),
  );
  const isIdle = rights.own.length > 0 && rights.left.length === 0 && !remains;
  const all = [
    ...own.filter(({ kind }) => kind !== 'ServiceAccount'),
    ...rights.own,
    ...own.filter(({ kind }) => kind === 'ServiceAccount'),
    ...(lease && isIdle ? [lease] : []),
  ];
  return { steps: all.map((object) => ({ action: 'delete', object })), left: [...rights.left, ...left] };
}

function leavingOf(
  snapshot: OnboardSnapshot,
  place: CertificatePlace,
  gateways: readonly OnboardableGateway[],
): Leaving {
  const certificate = snapshot.meshCertificates.find(
    ({ metadata }) => metadata.name === place.name && metadata.namespace === place.namespace,
  );
  const deletes = certificate && fields(certificate.spec).deletionPolicy === 'Delete';
  const standIns = gateways.flatMap((gateway) => standInsOf(snapshot.gatewayObjects, gateway, place));
  const using = gateways.flatMap((gateway) => routesInUse(snapshot.gatewayObjects, gateway, place));
  const releases = using.flatMap(({ route, gateway }): RouteRelease[] => {
    const restored = route.metadata.annotations?.[BEFORE_ANNOTATION] !== undefined;
    const back = backFrom(standIns, route, gateway);
    const after = back || restored ? movedBack(route, back) : gateway.onboarding.released(route)?.route;
    if (!after) return [];
    const how = back ? 'lead back' : restored ? 'restore' : 'withdraw';
    // Both objects in full: the deletion is what matters here.
    return [{ route, gateway, how, diff: diffObjects(route, after, 2, true) }];
  });
  const released = new Set(releases.map(({ route }) => route));
  return {
    ...place,
    certificate,
    releases,
    inUse: using.filter(({ route }) => !released.has(route)),
    standIns,
    objects: gateways.flatMap((gateway) => ownedBy(snapshot.gatewayObjects, gateway, place)).map(refOf),
    secrets: deletes ? secretsOf(certificate) : [],
    naming: namingOf(deletes ? namesOfSecrets(certificate) : [], snapshot.gatewayObjects, gateways, place),
  };
}

/** Neither the agent's objects nor what was created for routes. */
function namingOf(
  secrets: readonly CertificatePlace[],
  objects: readonly KubeObject[],
  gateways: readonly OnboardableGateway[],
  place: CertificatePlace,
): readonly KubeObject[] {
  const going = gateways.flatMap((gateway) => [
    ...ownedBy(objects, gateway, place),
    ...standInsOf(objects, gateway, place),
  ]);
  return objects.filter(
    (object) =>
      !going.includes(object) &&
      gatewayOf(object, gateways)
        ?.secretsNamedBy(object, objects)
        .some((use) => secrets.some((secret) => isSame(secret, use))),
  );
}

const isSame = (one: CertificatePlace, other: CertificatePlace): boolean =>
  one.namespace === other.namespace && one.name === other.name;

/** Throws ERR_OFFBOARD_IN_USE if a Secret that is to be deleted is named elsewhere. */
export function refuseNamed(naming: readonly KubeObject[]): void {
  if (naming.length === 0) return;
  const list = naming.map((object) => describe(refOf(object))).join(', ');
  throw new OnboardError(
    'ERR_OFFBOARD_IN_USE',
    `${list} still name a Secret that is to be deleted; remove that field there, and the labels by which they are selected, and run this again`,
  );
}

/** The routes of all namespaces that use one of this MeshCertificate's objects. */
export function routesInUse(
  objects: readonly KubeObject[],
  gateway: OnboardableGateway,
  place: CertificatePlace,
): RouteInUse[] {
  const own = [...ownedBy(objects, gateway, place), ...standInsOf(objects, gateway, place)];
  return objects
    .filter((object) => isRoute(object, gateway) && gateway.onboarding.uses(object, own, objects))
    .map((route) => ({ route, gateway }));
}

/** Throws ERR_OFFBOARD_IN_USE if deleting an object would make its route fall back to plaintext. */
export function refuseInUse(using: readonly RouteInUse[]): void {
  const [first] = using;
  if (!first) return;
  const list = using.map(({ route }) => describe(refOf(route))).join(', ');
  throw new OnboardError('ERR_OFFBOARD_IN_USE', first.gateway.onboarding.wording.inUse(list));
}

/** Those of its spec, whether they exist or not. */
function namesOfSecrets({ metadata: { name, namespace = '' }, spec }: KubeObject): CertificatePlace[] {
  const { secretName, caSecretName, crlSecretName } = fields(spec);
  const names = [text(secretName) ?? `${name}-identity`, text(caSecretName) ?? `${name}-ca`, text(crlSecretName)];
  return names.flatMap((one) => (one === undefined ? [] : [{ namespace, name: one }]));
}

/** A Secret of this name that the agent did not record is somebody else's. */
function secretsOf({ metadata, spec, status }: KubeObject): OwnedRef[] {
  const { namespace } = metadata;
  const configMap = text(fields(spec).configMapName);
  return [
    ...listOfFields(fields(status).secrets).flatMap(({ name, uid }) => {
      const known = { name: text(name), uid: text(uid) };
      return known.name && known.uid
        ? [{ apiVersion: 'v1', kind: 'Secret', namespace, name: known.name, uid: known.uid }]
        : [];
    }),
    ...(configMap === undefined ? [] : [{ apiVersion: 'v1', kind: 'ConfigMap', namespace, name: configMap }]),
  ];
}

/** Names of MeshCertificates that are gone and left objects. */
function orphans(
  { gatewayObjects }: OnboardSnapshot,
  namespace: string,
  gateways: readonly OnboardableGateway[],
): string[] {
  const created = gatewayObjects.flatMap((object) => {
    const name = object.metadata.labels?.[MESH_LABEL];
    if (name === undefined) return [];
    return gateways.some((gateway) => standInsOf([object], gateway, { namespace, name }).length > 0) ? [name] : [];
  });
  const owned = gatewayObjects.flatMap((object) => {
    const owner = object.metadata.labels?.[OWNER_LABEL];
    if (!owner?.startsWith(`${namespace}.`)) return [];
    const name = owner.slice(namespace.length + 1);
    return gateways.some((gateway) => ownedBy([object], gateway, { namespace, name }).length > 0) ? [name] : [];
  });
  return [...new Set([...created, ...owned])];
}
