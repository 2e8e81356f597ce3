import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { validator } from '../config/validate.ts';
import { differences } from '../core/plan.ts';
import type { PublicationStatus } from '../core/status.ts';
import { type Gateway, gatewayOf } from '../gateway/gateway.ts';
import { ownerLabel } from '../gateway/publication.ts';
import type { Selection } from '../kube/api.ts';
import { absentIsUndefined } from '../kube/transport/error.ts';
import { agentPodsOf } from '../mesh/cluster.ts';
import { printable } from '../mesh/secrets.ts';
import {
  describe,
  fields,
  type KubeObject,
  keyOf,
  listOfFields,
  type ObjectRef,
  OWNER_LABEL,
  type Precondition,
  preconditionOf,
  type Resource,
  refOf,
  text,
} from '../objects/objects.ts';

import { retryConflicts } from './apply.ts';
import { type OnboardableGateway, onboardable } from './discover.ts';
import {
  type AgentRights,
  BEFORE_ANNOTATION,
  backFrom,
  backPatch,
  type CertificatePlace,
  holderOf,
  isRoute,
  movedBack,
  ONBOARD_FIELD_MANAGER,
  ownedBy,
  rightsName,
  rightsOf,
  standInsOf,
  withVersion,
} from './moves.ts';
import {
  AGENT_NAME,
  chooseGateway,
  discover,
  type Findings,
  grantsFor,
  meant,
  type OnboardMeans,
  type OnboardStep,
} from './plan.ts';
import {
  diffObjects,
  isOnboarded,
  MESH_LABEL,
  OnboardError,
  type OnboardSnapshot,
  ownedOnly,
  takeSnapshot,
} from './snapshot.ts';

export interface OffboardOptions extends OnboardMeans {
  /** Namespace of the MeshCertificates; absent: that of the only gateway. */
  readonly namespace: string | undefined;
  /** Empty: all of them. */
  readonly names: readonly string[];
}

/** Reads the cluster and plans; changes nothing. */
export async function lookAndPlanOff(options: OffboardOptions): Promise<OffboardPlan> {
  const { kube, signal, names } = options;
  const snapshot = await takeSnapshot(kube, options, signal);
  const findings = discover(snapshot, options);
  const namespace = options.namespace ?? homeOf(snapshot, findings, options.gateways);
  const agent = { name: AGENT_NAME, namespace };
  const accounts = findings.gateways
    .filter(({ installation: { home } }) => home === namespace)
    .map(({ installation: { serviceAccount: name } }) => ({ name, namespace }));
  const refs: readonly ObjectRef[] = [
    { apiVersion: 'apps/v1', kind: 'Deployment', ...agent },
    { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', ...agent },
    ...[agent, ...accounts].map((account) => ({ apiVersion: 'v1', kind: 'ServiceAccount', ...account })),
  ];
  const [deployment, lease, ...own] = await Promise.all(refs.map((ref) => kube.get(ref, signal)));
  const validate = validator(options.adapters, options.gateways);
  /** Of these MeshCertificates, and those of the agent that are not named here. */
  const needed = (staying: readonly string[]): readonly KubeObject[] | undefined => {
    const certificates: MeshCertificate[] = [];
    for (const name of staying) {
      const isIt = ({ metadata }: KubeObject) => metadata.namespace === namespace && metadata.name === name;
      const result = validate(snapshot.meshCertificates.find(isIt));
      if (!result.ok) return undefined;
      certificates.push(result.value);
    }
    return grantsFor(certificates, namespace, undefined, {
      adapters: options.adapters,
      gateways: options.gateways,
      mounts: [],
    });
  };
  const observed = [deployment, ...own].filter((one) => one !== undefined);
  return planOffboarding(snapshot, namespace, names, { needed, observed, lease }, options.gateways);
}

/** The namespace of the only gateway, or of the only one with MeshCertificates. */
function homeOf(snapshot: OnboardSnapshot, findings: Findings, kinds: readonly Gateway[]): string {
  const homes = new Set(findings.gateways.flatMap(({ installation: { home, problem } }) => (problem ? [] : [home])));
  const used = snapshot.meshCertificates.flatMap(({ metadata: { namespace = '' } }) =>
    homes.has(namespace) ? [namespace] : [],
  );
  const [only, ...others] = new Set(homes.size > 1 ? used : homes);
  if (only !== undefined && others.length === 0) return only;
  if (homes.size <= 1) return chooseGateway(findings, kinds).installation.home;
  const message = `there are gateways in the namespaces ${[...homes].join(', ')}; name one with -n`;
  throw new OnboardError('ERR_ONBOARD_WHICH_GATEWAY', message);
}

/** Every object that is released or deleted, in order, and what a release can cost. Ends in a newline. */
export function showOffPlan({ leaving, grants }: OffboardPlan): string {
  const lines = leaving.flatMap(({ namespace, name, certificate, releases, inUse, standIns, objects, secrets }) => [
    `  MeshCertificate ${namespace}/${name}`,
    ...inUse.map(({ route, gateway }) => {
      return `    blocked by  ${describe(refOf(route))}, ${gateway.onboarding.wording.blocked}`;
    }),
    ...releases.flatMap((release) => [`    release  ${describe(refOf(release.route))}`, ...indented(release.diff)]),
    ...standIns.map((object) => `    delete   ${describe(refOf(object))}`),
    ...(certificate ? [`    delete   MeshCertificate ${namespace}/${name}`] : []),
    ...[...objects, ...secrets].map((ref) => `    delete   ${describe(ref)}`),
    ...(secrets.length === 0 ? [`    keep     its Secrets (${whyKept(certificate)})`] : []),
  ]);
  const agent = [
    ...grants.steps.map(({ action, object }) => `  ${action.padEnd(VERB_WIDTH)}${describe(refOf(object))}`),
    ...grants.left.map(({ object, why }) => `  ${'keep'.padEnd(VERB_WIDTH)}${describe(refOf(object))}: ${why}`),
  ];
  const wordings = leaving.flatMap(({ releases }) => releases.map(({ gateway }) => gateway.onboarding.wording));
  const costs = [...new Set(wordings.map(({ cost }) => `  ${cost}\n`))];
  const cost = costs.length === 0 ? '' : `\nWhat a release can cost\n${costs.join('')}`;
  return `Plan\n${[...lines, ...agent].map(printable).join('\n')}\n${cost}`;
}

const whyKept = (certificate: KubeObject | undefined): string =>
  fields(certificate?.spec).deletionPolicy === 'Delete'
    ? 'its status records none that the agent created'
    : 'deletionPolicy is not Delete';

const VERB_WIDTH = 'release  '.length;

const indented = (diff: readonly string[]): string[] => diff.map((line) => `        ${line}`);

/** How long the agent may take to act on a change before we continue without it: it may not run any more. */
const REACT_MS = 15_000;
const LOOK_MS = 500;
/** After the MeshCertificate is gone: an agent that still ran would restore the gateway's objects. */
const REST_MS = 3000;

/**
 * The reverse of onboarding: routes are released first, one by one and each in one write, then what was made for them
 * to lead to and the MeshCertificate are deleted, then the gateway's objects that nothing uses any more, and Secrets last. Stops before anything that a route
 * still needs.
 */
export async function carryOutOff({ leaving, grants }: OffboardPlan, options: OffboardOptions): Promise<void> {
  const { say, clock, signal } = options;
  refuseToLeave(leaving);
  for (const one of leaving) await leave(one, options);
  const secrets = leaving.flatMap((one) => one.secrets);
  if (secrets.length > 0) await clock.sleep(Math.max(...options.gateways.map(({ batchGapMs }) => batchGapMs)), signal);
  for (const ref of secrets) await removeSecret(ref, options);
  for (const step of grants.steps) await carryOutGrant(step, options);
  for (const { object, why } of grants.left) say.line(`${describe(refOf(object))} stays: ${why}`);
}

/** Where another object has taken its name, that one stays. */
async function removeSecret({ uid, ...ref }: OwnedRef, options: OffboardOptions): Promise<void> {
  const { kube, say, signal } = options;
  const live = await kube.get(ref, signal);
  if (live === undefined) return;
  const isOurs = uid === undefined ? live.metadata.labels?.[OWNER_LABEL] !== undefined : live.metadata.uid === uid;
  if (isOurs) await remove(live, options);
  else say.line(`${describe(ref)} stays: the agent did not create it`);
}

/** An object may have been taken over since the plan was made. */
async function carryOutGrant({ action, object }: GrantStep, options: OffboardOptions): Promise<void> {
  const { kube, say, signal } = options;
  const ref = refOf(object);
  if (action === 'change') {
    await kube.apply(object, { fieldManager: ONBOARD_FIELD_MANAGER, force: true }, signal);
    say.line(`${describe(ref)} reduced to what is still needed`);
    return;
  }
  await retryConflicts(
    async () => {
      const live = await kube.get(ref, signal);
      if (!live) return;
      const holder = ref.kind === 'Lease' ? undefined : holderOf(live);
      if (holder !== undefined || live.metadata.uid !== object.metadata.uid) {
        say.line(`${describe(ref)} stays: ${holder ?? 'another client'} has taken it over`);
        return;
      }
      // An agent that has not ended yet still renews its Lease.
      await remove(live, options, ref.kind === 'Lease' ? uidOf(live) : preconditionOf(live));
    },
    LOOK_MS,
    options,
  );
}

async function leave(leaving: Leaving, options: OffboardOptions): Promise<void> {
  const { certificate, releases } = leaving;
  const gateways = onboardable(options.gateways);
  if (certificate) await stopSelecting(certificate, gateways, options);
  const place = { namespace: leaving.namespace, name: leaving.name };
  for (const release of releases) await retryConflicts(() => letGo(release, place, options), LOOK_MS, options);
  for (const gateway of gateways) refuseInUse(await routesNow(gateway, place, options));
  await followed(releases, options);
  for (const gateway of gateways) {
    for (const object of await standInsNow(gateway, place, options)) await remove(object, options);
  }
  if (certificate) {
    await remove(certificate, options);
    await options.clock.sleep(REST_MS, options.signal);
  }
  for (const gateway of gateways) {
    for (const object of await ownNow(gateway, place, options)) await remove(object, options);
  }
}

/** The agent must not change released routes again. */
async function stopSelecting(
  certificate: KubeObject,
  gateways: readonly OnboardableGateway[],
  { kube, clock, say, signal }: OffboardOptions,
): Promise<void> {
  const ref = refOf(certificate);
  const selecting = gateways.flatMap(({ onboarding }) => {
    const patch = onboarding.deselected(fields(certificate.spec));
    return patch === undefined ? [] : [{ patch, routes: onboarding.wording.routes }];
  });
  if (selecting.length === 0) return;
  const spec = Object.assign({}, ...selecting.map(({ patch }) => patch));
  const changed = await kube.merge(ref, { spec }, { fieldManager: ONBOARD_FIELD_MANAGER }, signal);
  const end = clock.monotonic() + REACT_MS;
  const routes = selecting.map((one) => one.routes).join(' and ');
  say.waiting(`waiting for the agent to release the ${routes} of ${certificate.metadata.name}`);
  while (clock.monotonic() < end) {
    const live = await kube.get(ref, signal);
    const status = live?.status as PublicationStatus | undefined;
    const seen = Math.max(0, ...(status?.conditions ?? []).map((one) => one.observedGeneration ?? 0));
    if (!live || seen >= (changed.metadata.generation ?? 0)) return;
    await clock.sleep(LOOK_MS, signal);
  }
  say.line('no agent responded; continuing without it');
}

/** Until the gateway no longer needs what its routes led to. One that does not respond keeps what it has loaded. */
async function followed(
  releases: readonly RouteRelease[],
  { kube, clock, say, signal }: OffboardOptions,
): Promise<void> {
  const end = clock.monotonic() + REACT_MS;
  for (const { route, gateway } of releases) {
    const { standIns } = gateway.onboarding;
    while (standIns) {
      const live = await kube.get(refOf(route), signal);
      const pending = live && standIns.pending(live);
      if (pending === undefined) break;
      if (clock.monotonic() >= end) {
        say.line(`the gateway has not responded; continuing without it: waited for ${pending.why}`);
        break;
      }
      say.waiting(`waiting for ${pending.why}`);
      await clock.sleep(LOOK_MS, signal);
    }
  }
}

async function letGo(
  { route, gateway, how }: RouteRelease,
  place: CertificatePlace,
  options: OffboardOptions,
): Promise<void> {
  const { kube, say, signal } = options;
  const ref = refOf(route);
  const { onboarding } = gateway;
  const live = await kube.get(ref, signal);
  if (!live) return;
  const led = how === 'lead back' ? backFrom(await standInsNow(gateway, place, options), live, gateway) : undefined;
  const patch = how === 'restore' ? backPatch(live) : led;
  const fieldManager = onboarding.released(live)?.fieldManager;
  if (patch) await kube.merge(ref, patch, { fieldManager: ONBOARD_FIELD_MANAGER }, signal);
  else if (fieldManager !== undefined) {
    const { name, namespace } = live.metadata;
    const metadata = { name, ...(namespace && { namespace }), ...preconditionOf(live) };
    const nothing = { apiVersion: live.apiVersion, kind: live.kind, metadata };
    await kube.apply(nothing, { fieldManager }, signal);
  }
  say.line(`${describe(ref)} ${how === 'restore' ? 'is restored' : onboarding.wording.released}`);
}

/** Its objects of the gateway that exist now, whatever was planned. */
async function ownNow(
  gateway: OnboardableGateway,
  place: CertificatePlace,
  options: OffboardOptions,
): Promise<KubeObject[]> {
  const labelSelector = `${OWNER_LABEL}=${ownerLabel(place)}`;
  const lists = await Promise.all(
    gateway.onboarding
      .own(place)
      .map(({ resource, namespace }) => listAll(resource, { namespace, labelSelector }, options)),
  );
  return ownedBy(lists.flat(), gateway, place);
}

/** What was created for routes of this gateway to lead to. */
async function standInsNow(
  gateway: OnboardableGateway,
  place: CertificatePlace,
  options: OffboardOptions,
): Promise<KubeObject[]> {
  const { resources = [] } = gateway.onboarding.standIns ?? {};
  const selection = { namespace: place.namespace, labelSelector: `${MESH_LABEL}=${place.name}` };
  const lists = await Promise.all(resources.map((resource) => listAll(resource, selection, options)));
  return standInsOf(lists.flat(), gateway, place);
}

/** Routes that use one of its objects now, whatever was planned. */
async function routesNow(
  gateway: OnboardableGateway,
  place: CertificatePlace,
  options: OffboardOptions,
): Promise<RouteInUse[]> {
  const own = [...(await ownNow(gateway, place, options)), ...(await standInsNow(gateway, place, options))];
  if (own.length === 0) return [];
  const kinds = gateway.onboarding.own({ namespace: '', name: '' }).map(({ resource }) => resource);
  const lists = await Promise.all(
    [...gateway.onboarding.routes, ...new Set(kinds)].map((resource) =>
      listAll(resource, ownedOnly(resource), options),
    ),
  );
  return routesInUse([...own, ...lists.flat()], gateway, place);
}

/** A kind that is not defined has no objects. */
async function listAll(
  resource: Resource,
  selection: Selection,
  { kube, signal }: OffboardOptions,
): Promise<readonly KubeObject[]> {
  return (await absentIsUndefined(kube.list(resource, selection, signal)))?.items ?? [];
}

/** Only this object, not one that has taken its name since. */
async function remove(
  object: KubeObject,
  { kube, say, signal }: OffboardOptions,
  precondition = uidOf(object),
): Promise<void> {
  const ref = refOf(object);
  if (await kube.delete(ref, precondition, signal)) say.line(`${describe(ref)} deleted`);
}

const uidOf = ({ metadata: { uid } }: KubeObject): Precondition => ({ ...(uid && { uid }) });

/** A route that uses an object of ours. */
interface RouteInUse {
  readonly route: KubeObject;
  readonly gateway: OnboardableGateway;
}

/**
 * How a route stops using the mesh: restored to its state before `onboard`, led to where it led before, or by
 * withdrawing the agent's change.
 */
interface RouteRelease extends RouteInUse {
  readonly how: 'restore' | 'lead back' | 'withdraw';
  readonly diff: readonly string[];
}

/** One MeshCertificate to delete, or the leftovers of one that is already gone. */
interface Leaving {
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

interface OwnedRef extends ObjectRef {
  readonly uid?: string | undefined;
}

/** An object that `onboard` created for the agent, as it will be, or as it was observed. */
interface GrantStep extends Pick<OnboardStep, 'object'> {
  readonly action: 'change' | 'delete';
}

/** What becomes of the objects that `onboard` created for the agent. */
interface Grants {
  readonly steps: readonly GrantStep[];
  /** What stays although nothing needs it any more, and why. */
  readonly left: AgentRights['left'];
}

interface OffboardPlan {
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
        .some((use) => secrets.some(({ namespace, name }) => namespace === use.namespace && name === use.name)),
  );
}

/**
 * Throws ERR_OFFBOARD_IN_USE if deleting an object would make its route fall back to plaintext, or if a Secret that is
 * to be deleted is named elsewhere.
 */
export function refuseToLeave(leaving: readonly Leaving[]): void {
  refuseInUse(leaving.flatMap(({ inUse }) => inUse));
  const naming = leaving.flatMap((one) => one.naming);
  if (naming.length === 0) return;
  const list = naming.map((object) => describe(refOf(object))).join(', ');
  throw new OnboardError(
    'ERR_OFFBOARD_IN_USE',
    `${list} still name a Secret that is to be deleted; remove that field there, and the labels by which they are selected, and run this again`,
  );
}

/** The routes of all namespaces that use one of this MeshCertificate's objects. */
function routesInUse(
  objects: readonly KubeObject[],
  gateway: OnboardableGateway,
  place: CertificatePlace,
): RouteInUse[] {
  const own = [...ownedBy(objects, gateway, place), ...standInsOf(objects, gateway, place)];
  return objects
    .filter((object) => isRoute(object, gateway) && gateway.onboarding.uses(object, own, objects))
    .map((route) => ({ route, gateway }));
}

function refuseInUse(using: readonly RouteInUse[]): void {
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
