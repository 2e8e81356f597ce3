import { describe, type KubeObject, type ObjectRef, OWNER_LABEL, refOf } from '../../core/object.ts';
import { type Gateway, gatewayOf } from '../../gateway/gateway.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import { type OnboardableGateway, onboardable } from '../discover/gateway.ts';
import { meant } from './choice.ts';
import { type DiffLine, diffObjects } from './diff.ts';
import { isOnboarded, MESH_LABEL } from './document.ts';
import { OnboardError } from './error.ts';
import { BEFORE_ANNOTATION, backFrom, movedBack } from './moved.ts';
import { type CertificatePlace, isRoute, ownedBy, standInsOf } from './owned.ts';
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
  /** Only with `deletionPolicy: Delete`. */
  readonly secrets: readonly ObjectRef[];
  /** Objects of somebody else's that name one of these Secrets. */
  readonly naming: readonly KubeObject[];
}

export interface OffboardPlan {
  readonly leaving: readonly Leaving[];
  /** What `onboard` created for the agent, once no MeshCertificate is left there. */
  readonly grants: readonly ObjectRef[];
}

/** Which MeshCertificates are deleted, and in what order their dependents are released. Pure. */
export function planOffboarding(
  snapshot: OnboardSnapshot,
  namespace: string,
  names: readonly string[],
  grants: readonly KubeObject[],
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
    grants: rest.length > 0 ? [] : grants.filter(isOnboarded).map(refOf),
  };
}

function leavingOf(
  snapshot: OnboardSnapshot,
  place: CertificatePlace,
  gateways: readonly OnboardableGateway[],
): Leaving {
  const certificate = snapshot.meshCertificates.find(
    ({ metadata }) => metadata.name === place.name && metadata.namespace === place.namespace,
  );
  const secrets = certificate && fields(certificate.spec).deletionPolicy === 'Delete' ? secretsOf(certificate) : [];
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
    secrets,
    naming: namingOf(secrets, snapshot.gatewayObjects, gateways, place),
  };
}

/** Neither the agent's objects nor what was created for routes. */
function namingOf(
  secrets: readonly ObjectRef[],
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
        .some((use) => secrets.some(({ kind, ...ref }) => kind === 'Secret' && isSame(ref, use))),
  );
}

const isSame = (one: Pick<ObjectRef, 'namespace' | 'name'>, other: CertificatePlace): boolean =>
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
    .filter((object) => isRoute(object, gateway) && gateway.onboarding.uses(object, own))
    .map((route) => ({ route, gateway }));
}

/** Throws ERR_OFFBOARD_IN_USE if deleting an object would make its route fall back to plaintext. */
export function refuseInUse(using: readonly RouteInUse[]): void {
  const [first] = using;
  if (!first) return;
  const list = using.map(({ route }) => describe(refOf(route))).join(', ');
  throw new OnboardError('ERR_OFFBOARD_IN_USE', first.gateway.onboarding.wording.inUse(list));
}

function secretsOf({ metadata, spec }: KubeObject): ObjectRef[] {
  const { namespace, name } = metadata;
  const { secretName, caSecretName, configMapName } = fields(spec);
  const ref = (kind: string, of: string) => ({ apiVersion: 'v1', kind, namespace, name: of });
  const configMap = text(configMapName);
  return [
    ref('Secret', text(secretName) ?? `${name}-identity`),
    ref('Secret', text(caSecretName) ?? `${name}-ca`),
    ...(configMap === undefined ? [] : [ref('ConfigMap', configMap)]),
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
