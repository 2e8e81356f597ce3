import type { GatewayFields, MeshCertificate, MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { ConditionStatus, RouteStatus } from '../core/status.ts';
import type { Adapter, TlsDefaults } from '../mesh/adapter.ts';
import type { PeerName, TargetRefusal, TargetRules, Workload } from '../mesh/cluster.ts';
import type { CheckTitle, Finding } from '../mesh/object-check.ts';
import {
  describe,
  fields,
  isKindOf,
  type KubeObject,
  type ObjectRef,
  type Resource,
  refOf,
  text,
} from '../objects/objects.ts';
import type { Certificate } from '../pki/certificate.ts';
import { CodedError } from '../pki/der.ts';

/** Trust before identity, both before the objects that name them, and routes last; retiring uses the reverse order. */
export const ORDER = { trust: 1, identity: 2, gateway: 3 } as const;

/** The objects in the cluster, as far as they were requested. */
export interface ObservedObjects {
  /** Routes that concern the MeshCertificate. */
  readonly routes: readonly KubeObject[];
  /** Objects of the gateway's own kinds that carry the MeshCertificate's owner label, needed or not. */
  readonly own: readonly KubeObject[];
  /** The objects of this kind in the scopes of `behind`. */
  behind(kind: string): readonly KubeObject[];
  /** Namespaces whose objects are unknown, and why. */
  readonly unseen: ReadonlyMap<string, string>;
  /** Why the objects of this kind in the scopes of `behind` are unknown there; undefined: they are known. */
  hidden(kind: string, namespace?: string): string | undefined;
  /** Kinds that the cluster does not serve. */
  readonly unserved: ReadonlySet<string>;
}

/** A change to a route: fields of somebody else's object, set by server-side apply only. */
export interface RouteChange {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly fieldManager: string;
}

/** What the gateway connects to for a route. */
export interface RouteDestination {
  /** `host:port`, which means the same in every namespace. */
  readonly address: string;
  /** The server name that the gateway sends. */
  readonly sni?: string | undefined;
  /** The identity of the workload behind it, if the mesh names it. */
  readonly id?: string | undefined;
  /** The names that the gateway accepts there, if it verifies them. */
  readonly names?: readonly PeerName[] | undefined;
  /** The Service of the address, if it is one. */
  readonly service?: { readonly namespace: string; readonly name: string } | undefined;
}

/** Where a route leads. */
export interface RouteTarget {
  /** Our object that the route uses, or will use once it exists; perhaps the Secret of the pair. */
  readonly object: ObjectRef;
  /** The identity of the workload behind it, if the mesh names it. */
  readonly id?: string | undefined;
  /** The fields that the route has when it uses the object; absent: the object selects the route by itself. */
  readonly change?: RouteChange | undefined;
  /** The fields are already set, or the object exists. */
  readonly isSet: boolean;
}

/** The verdict on one route that uses, or should use, the identity. */
export interface RouteVerdict {
  readonly route: KubeObject;
  /** The upstream as the user wrote it. */
  readonly service: string;
  /** Whether the MeshCertificate selects it. */
  readonly selected: boolean;
  /** The object, ours or not, that it uses now. */
  readonly uses?: string | undefined;
  /** Our object that it uses, without which it would lose mTLS. */
  readonly dependsOn?: ObjectRef | undefined;
  /** Everything that it may connect to. Absent: unknown, or the identity must not be shown there. */
  readonly upstreams?: readonly RouteDestination[] | undefined;
  readonly outcome: { readonly target: RouteTarget } | RouteRefusal;
}

/** Why a route is not changed; the message ends with the next step. */
export interface RouteRefusal extends TargetRefusal {
  /** The message without the name of the route. */
  readonly reason: string;
}

export const routeRefusal = (route: KubeObject, { code, message }: TargetRefusal): RouteRefusal => ({
  code,
  message: `${describe(refOf(route))} cannot use the certificate: ${message}`,
  reason: message,
});

export interface RouteJudgement<T> {
  readonly verdicts: readonly RouteVerdict[];
  /** What the routes need of the publication, for `desired`; sorted, so that equal targets give equal lists. */
  readonly targets: readonly T[];
}

/** The routes of a gateway. Pure: the verdicts depend only on the observed objects. */
export interface Routes<C, T> {
  /** Where to look for routes, and for the gateway's own objects that they use. */
  scopes(input: GatewayInput<C>): { readonly routes: readonly Scope[]; readonly own: readonly Scope[] };
  /** Selects the routes that the MeshCertificate selects or that use one of our objects. */
  concern(input: RouteInput<C>, own: readonly KubeObject[]): (route: KubeObject) => boolean;
  /** The objects behind these routes that are needed to judge them. Reading them may be forbidden. */
  behind(input: RouteInput<C>, seen: Pick<ObservedObjects, 'routes' | 'own'>): readonly Scope[];
  judge(input: RouteInput<C>, observed: ObservedObjects): RouteJudgement<T>;
  /** The workloads that have their own object, and its name, for status. */
  identities(targets: readonly T[]): readonly { readonly id: string; readonly object: string }[];
}

/** The EndpointSlices of a Service, among those of its namespace. */
export const slicesOf = (service: string, slices: readonly KubeObject[]): readonly KubeObject[] =>
  slices.filter(({ metadata }) => metadata.labels?.['kubernetes.io/service-name'] === service);

/** A pod as a mesh identifies it. */
export const workloadOf = ({ metadata, spec }: KubeObject): Workload => ({
  name: metadata.name,
  namespace: metadata.namespace ?? '',
  serviceAccount: text(fields(spec).serviceAccountName) ?? 'default',
  labels: metadata.labels ?? {},
  annotations: metadata.annotations ?? {},
});

/**
 * What the status says of one route, and what the condition `Referenced` and the check of upstreams need of it. `state`:
 * `ok` if the route uses its object, or is not selected and uses one of ours; `waiting` if it will use it once the object
 * exists; otherwise the code of why it does not.
 */
export interface RouteState extends RouteStatus {
  readonly service: string;
  /** What it connects to with the identity; absent while it does not use it. */
  readonly upstreams?: readonly RouteDestination[] | undefined;
}

/** Whether something keeps a route from using the identity. */
export const isRefused = ({ state }: RouteState): boolean => state !== 'ok' && state !== 'waiting';

/** How status and messages describe this kind of gateway. */
export interface Wording {
  /** Everything that must be listed before something is retired. */
  readonly everything: string;
  /** How a user makes a route stop using the identity. */
  readonly release: string;
  /** The log message for the deletion of an object that no route needs. */
  readonly orphan: string;
  /** What becomes of its routes where an object of its own is missing. */
  readonly missing: string;
  /** The reasons that `referenced` gives; docs/runbook.md has an entry for each. */
  readonly reasons: readonly string[];
  /** The condition `Referenced`; `left` are the selected routes that are not changed. */
  referenced(
    routes: readonly RouteState[],
    left: readonly RouteState[],
  ): { readonly status: 'True' | 'False'; readonly reason: string; readonly message: string };
}

/**
 * One kind of gateway: the objects that make it use an identity, the routes that use them, and how to confirm that it
 * does. Everything is pure and synchronous; the agent reads and writes. `C` is its part of a MeshCertificate, `T` what
 * its routes need of a publication, which is opaque to all other code.
 */
export interface Gateway<C = unknown, T = unknown> extends GatewayFields<C> {
  /** What people call it. */
  readonly title: string;
  /** The gateway's own kinds; their objects are written with a gap to Secrets. */
  readonly resources: readonly Resource[];
  /**
   * Its own objects in the order of writing, after the Secrets. Equal inputs give equal objects. Throws a GatewayError
   * for content that it would misread.
   */
  desired(input: PublicationInput<C, T>): readonly KubeObject[];
  /** Why it would misread a Secret of this name, or undefined. */
  secretNameProblem(name: string): string | undefined;
  /** Names at least everything that `desired` returns for the same input, in the order of writing. */
  references(input: ReferenceInput<C, T>): readonly ObjectRef[];
  readonly routes: Routes<C, T>;
  /**
   * Milliseconds between a write of a Secret and one of its own objects, so that it does not see both at once; 0: no
   * gap.
   */
  readonly batchGapMs: number;
  /** The Secrets that an object of its own kinds uses; what lies beside it may say whether it may. */
  secretsNamedBy(object: KubeObject, beside: readonly KubeObject[]): readonly SecretUse[];
  /** What to install when the cluster does not serve its kinds. */
  readonly definitions: string;
  readonly wording: Wording;
  /** Optional capability: `doctor` knows the traps of its objects. */
  readonly diagnosis?: Diagnosis | undefined;
  /** Optional capability: whether the gateway uses what is published can be observed. */
  readonly loading?: Loading<C> | undefined;
  /** Optional capability: `onboard` and `offboard` take its routes into a mesh and out of it. */
  readonly onboarding?: Onboarding<C> | undefined;
}

/** A gateway that a MeshCertificate uses, with its configuration and what its routes need. */
export interface GatewayUse<C = unknown, T = unknown> {
  readonly gateway: Gateway<C, T>;
  readonly config: C;
  readonly targets: readonly T[] | undefined;
}

/** The gateways that a MeshCertificate uses. */
export function gatewaysOf(spec: MeshCertificateSpec, gateways: readonly Gateway[]): readonly GatewayUse[] {
  return gateways.flatMap((gateway) => {
    const config = spec.gateways[gateway.kind];
    return config === undefined ? [] : [{ gateway, config, targets: undefined }];
  });
}

/** The gateway whose kind an object has, or undefined for the kinds of Kubernetes itself. */
export function gatewayOf(
  object: Pick<ObjectRef, 'apiVersion' | 'kind'>,
  gateways: readonly Gateway[],
): Gateway | undefined {
  return gateways.find(({ resources }) => resources.some(isKindOf(object)));
}

/** What the gateway shows once it has loaded a publication. */
export interface ExpectedLoad {
  /** Equal digests mean the same publication; a nudge writes a short form of it. */
  readonly digest: string;
}

/**
 * `live`: the data plane uses what is published. `stale`: it uses something older, too. `absent`: the gateway has none of
 * it. `read`: the control plane has read it, and nothing shows what the data plane uses.
 */
export type Arrival = 'live' | 'stale' | 'absent' | 'read';

export interface Loaded {
  readonly arrival: Arrival;
  /** Whether the answer comes from the data plane itself, and not from the control plane. */
  readonly certain: boolean;
}

/** The content of the condition `Live`. */
export interface LiveCondition {
  readonly status: ConditionStatus;
  readonly reason: string;
  readonly message: string;
}

/** A change of one of our objects that makes the gateway read everything again. */
export interface Nudge {
  readonly ref: ObjectRef;
  /** A JSON merge patch. */
  readonly patch: object;
  readonly fieldManager: string;
}

/**
 * How to observe that a gateway has loaded a publication: from its answer at a URL, from the status that it writes to
 * objects, or from both. Pure.
 */
export interface Loading<C = unknown, E extends ExpectedLoad = ExpectedLoad, L extends Loaded = Loaded> {
  /** Undefined if nothing is published that the gateway would load. */
  expected(input: GatewayInput<C>, desired: readonly { readonly object: KubeObject }[]): E | undefined;
  readonly answers?: {
    /** What to request, from the URL that an operator configured. */
    requests(url: string): readonly LoadingRequest[];
    /**
     * `answers` has one for each of `requests`, undefined where it failed. Undefined if nothing of the publication
     * concerns the one that answers, or what answered does not suffice. Throws for an answer of another kind.
     */
    judge(answers: readonly unknown[], expected: E): L | undefined;
  };
  readonly statuses?: {
    /** The objects whose status shows what was loaded. */
    scopes(input: GatewayInput<C>): readonly Scope[];
    judge(objects: readonly KubeObject[], expected: E): L;
  };
  condition(found: L | { readonly failure: string }, expected: E): LiveCondition;
  /** The reasons that `condition` gives; docs/runbook.md has an entry for each. */
  readonly reasons: readonly string[];
  /** The changes that help a gateway that stays on an old state; `attempt` counts from 1. */
  nudge?(desired: readonly { readonly object: KubeObject }[], expected: E, attempt: number, found: L): readonly Nudge[];
}

/** One GET, answered with JSON or, with `wanted`, with lines of text, of which those matter that begin with one of these. */
export interface LoadingRequest {
  readonly url: URL;
  readonly wanted?: readonly string[];
}

/** Where a gateway of this kind answers what it has loaded. */
export interface LoadingEndpoint {
  readonly kind: string;
  readonly requests: readonly LoadingRequest[];
}

/** The worst of several, since a gateway can be stale in several places; `read` proves nothing, and so counts last. */
export function worstOf(judged: readonly Loaded[]): Loaded | undefined {
  const rank = { stale: 0, absent: 1, live: 2, read: 3 } as const;
  return judged.toSorted((a, b) => rank[a.arrival] - rank[b.arrival] || Number(b.certain) - Number(a.certain))[0];
}

/** One MeshCertificate, as a gateway sees it. */
export interface GatewayInput<C> {
  readonly meta: { readonly name: string; readonly namespace: string; readonly uid?: string | undefined };
  readonly spec: MeshCertificateSpec;
  /** The result of its `configure`. */
  readonly config: C;
}

/** `targets`: what its routes need, from `judge`; undefined before they were judged. */
export interface ReferenceInput<C, T> extends GatewayInput<C> {
  readonly targets: readonly T[] | undefined;
}

export interface PublicationInput<C, T> extends ReferenceInput<C, T> {
  /** How the mesh must be addressed, unless the user configures otherwise. */
  readonly tls: Adapter['tls'];
  /** Never empty; newest root first. */
  readonly bundle: readonly Certificate[];
  /** The leaf that is published with them. */
  readonly leaf: Certificate;
  /** Name of the Secret with CRLs, key `crl.pem`; absent: upstreams are not checked for revocation. */
  readonly crlSecretName?: string | undefined;
}

/** What a gateway must know of a mesh to address its workloads. */
export interface MeshView extends Pick<Adapter, 'title' | 'peer' | 'takesPoliciesOf'> {
  readonly tls: TlsDefaults;
}

export interface RouteInput<C> extends GatewayInput<C> {
  /** Absent: nothing is known of the mesh. */
  readonly mesh?: MeshView | undefined;
  /** How the mesh names the workloads behind a route; absent: one identity serves the whole mesh. */
  readonly rules?: TargetRules | undefined;
}

/** Where to look for objects. A cluster that does not serve the kind has no objects of it, which is not a failure. */
export interface Scope {
  readonly resource: Resource;
  /** Absent: in all namespaces. */
  readonly namespace?: string | undefined;
  /** Only the object of this name; a Role may then name it. */
  readonly name?: string | undefined;
}

/** Where an object names a Secret. */
export interface SecretUse {
  readonly namespace: string;
  readonly name: string;
}

const GATEWAY_ERROR_CODES = ['ERR_GATEWAY_NAME', 'ERR_GATEWAY_EMPTY_BUNDLE', 'ERR_GATEWAY_EMPTY_CHAIN'] as const;

type GatewayErrorCode = (typeof GATEWAY_ERROR_CODES)[number];

/** The configuration cannot be written in a way that the gateway reads correctly. */
export class GatewayError extends CodedError<GatewayErrorCode> {
  override readonly name = 'GatewayError';
}

/** What is judged: objects of a cluster or of files. Kinds that no check knows are ignored. */
export interface ClusterSnapshot {
  readonly objects: readonly KubeObject[];
  /** Epoch ms. */
  readonly now: number;
  readonly adapters: readonly Adapter[];
  /** Kinds that were read wholly. A directory of routes says nothing about Secrets that are not in it. */
  readonly whole: ReadonlySet<string>;
  /** Where objects were read; absent: nowhere was left out. */
  readonly namespaces?: readonly string[] | undefined;
  /** What is wrong with a MeshCertificate in itself. */
  readonly validate?: ((object: KubeObject) => readonly string[]) | undefined;
  /** A valid MeshCertificate with its defaults, or undefined. */
  readonly parse?: ((object: KubeObject) => MeshCertificate | undefined) | undefined;
  /** Whether a MeshCertificate uses this kind of gateway; absent: each does. */
  readonly uses?: ((object: KubeObject, kind: string) => boolean) | undefined;
}

/** The objects of a snapshot, by kind and by name. */
export interface SnapshotObjects {
  all(kind: string): readonly KubeObject[];
  find(kind: string, ref: SecretUse): KubeObject | undefined;
  /** Whether an absent object of this kind is missing, rather than unknown. */
  known(kind: string): boolean;
}

export function objectsOf({ objects, whole }: ClusterSnapshot): SnapshotObjects {
  const byKind = new Map<string, KubeObject[]>();
  for (const object of objects) {
    const others = byKind.get(object.kind);
    if (others) others.push(object);
    else byKind.set(object.kind, [object]);
  }
  const all = (kind: string) => byKind.get(kind) ?? [];
  return {
    all,
    find: (kind, ref) =>
      all(kind).find(({ metadata }) => metadata.name === ref.name && (metadata.namespace ?? '') === ref.namespace),
    known: (kind) => whole.has(kind) || byKind.has(kind),
  };
}

/** Checks by what they are about. */
export interface CheckArea {
  readonly prefix: string;
  readonly name: string;
}

/** What the user says of the gateway; it wins over what is found. */
export interface GatewaySettings {
  /** By which the gateway tells its objects from those of others. */
  readonly id?: string | undefined;
  readonly namespace?: string | undefined;
}

/** A kind that the API server must serve in this version. */
interface ServedKind {
  readonly resource: Resource;
  readonly fix: string;
  /** Why its definition, which is served, may cause problems later. */
  experimental?(definition: KubeObject): { readonly message: string; readonly fix: string } | undefined;
}

/** What `doctor` looks for in objects of this gateway. Pure. */
export interface Diagnosis {
  /** The kinds that the checks read, beside those of Kubernetes. */
  readonly resources: readonly Resource[];
  readonly checks: readonly CheckTitle[];
  readonly areas: readonly CheckArea[];
  /** The Secrets and ConfigMaps that an object names, under every reading of the name. */
  objectsToRead(object: KubeObject): readonly ObjectRef[];
  /**
   * What is wrong, for each gateway among the objects; without one, for a gateway with its defaults. The checks of
   * the adapters are given what this gateway makes of the objects. In no order, and twice where two gateways agree.
   */
  diagnose(snapshot: ClusterSnapshot, settings: GatewaySettings): readonly Finding[];
  /** What the API server must serve. */
  readonly served: readonly ServedKind[];
}

/** What is listed in all namespaces. Values only, as far as they may be read. */
export interface ClusterLists {
  readonly namespaces: readonly KubeObject[];
  /** Deployments, DaemonSets and StatefulSets. */
  readonly workloads: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  /** Objects of the kinds that the gateways request, and the Services. */
  readonly gatewayObjects: readonly KubeObject[];
}

/** The same, with what was read of single namespaces. */
export interface RouteObjects extends ClusterLists {
  /** Of the namespaces behind routes, and of the gateways'. */
  readonly pods: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
}

/** A gateway that runs in the cluster. Each kind of gateway adds its own fields. */
export interface GatewayInstallation {
  /** The object by which people know it, such as its Deployment. */
  readonly object: KubeObject;
  readonly product: string;
  readonly version: string | undefined;
  /** The namespace of its MeshCertificates. */
  readonly home: string;
  /** The ServiceAccount of its pods, in `home`. */
  readonly serviceAccount: string;
  /** The workload of these pods; absent: unknown. Sidecars of a mesh are looked for in it. */
  readonly workload: KubeObject | undefined;
  /** Milliseconds between a write of a Secret and a change of a route, where it needs more than `batchGapMs`. */
  readonly gapMs: number;
  /** Why its routes cannot be taken into a mesh; it is then not chosen. */
  readonly problem?: TargetRefusal | undefined;
}

/** A route, and how requests reach its upstream now. */
export interface RouteUpstream {
  readonly route: KubeObject;
  /** The upstream as the user wrote it. */
  readonly service: string;
  /** `host:port` that a probe dials; the host has the same meaning in every namespace. */
  readonly address: string;
  /** For people, such as `plaintext`. */
  readonly now: string;
  /** The pods behind it, or why they are unknown. */
  readonly answering: readonly Workload[] | TargetRefusal;
  /** What a client sends to the gateway so that this route serves it; a text says why that is not known. */
  readonly requests: readonly RouteRequest[] | string;
}

/** `host` only where the route demands one. Only methods that change nothing. */
export type RouteRequest =
  | {
      readonly method: 'GET' | 'HEAD';
      readonly path: string;
      readonly host: string | undefined;
      readonly headers: Readonly<Record<string, string>>;
    }
  /** A TCP connection, with TLS and this server name if there is a host. */
  | { readonly port: number; readonly host: string | undefined };

/** What a MeshCertificate must say so that a gateway joins a mesh. */
export interface JoinRequest<I extends GatewayInstallation = GatewayInstallation> {
  readonly installation: I;
  /** Name of the MeshCertificate; its namespace is `home`. */
  readonly name: string;
  /** The routes that are to join, and their namespaces. */
  readonly routes: readonly KubeObject[];
  readonly namespaces: readonly string[];
  /** The labels by which it selects routes. */
  readonly labels: Readonly<Record<string, string>>;
  readonly gatewayObjects: readonly KubeObject[];
}

/** How messages of `onboard` and `offboard` name things. */
export interface OnboardingWording {
  /** A sentence that says that no such gateway runs, without its end. */
  readonly absent: string;
  readonly route: string;
  readonly routes: string;
  /** Fields below `spec` of a MeshCertificate: which routes it changes, and in which namespaces. */
  readonly selector: string;
  readonly namespaces: string;
  /** Why a route blocks: a clause about the route. */
  readonly blocked: string;
  /** What a move can cost, as it was measured: sentences. */
  readonly cost: string;
  /** The route, after the agent has withdrawn its change: a predicate. */
  readonly released: string;
  /** The error for routes that still need an object of ours; `list` names them. It ends with the next step. */
  inUse(list: string): string;
}

/** Where objects are made that stand in for the targets of routes, and what they carry. */
export interface StandInRequest {
  /** The MeshCertificate. */
  readonly namespace: string;
  readonly name: string;
  /** The Secret of its pair. */
  readonly secretName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly objects: RouteObjects;
}

/**
 * For a gateway whose routes name no object of the agent: `onboard` creates an object that stands in for each target of
 * a route, the agent gives it the identity, and then the route is led to it in one write.
 */
export interface StandIns {
  /** Their kinds, and those of what they need. The kind that routes name comes first. */
  readonly resources: readonly Resource[];
  /** What these routes need in the namespace of the MeshCertificate, also for the targets that were replaced before. */
  objects(routes: readonly KubeObject[], request: StandInRequest): readonly KubeObject[];
  /** Fields of `spec` by which a route leads to the stand-ins; undefined: it does already. */
  redirected(route: KubeObject, request: StandInRequest): Readonly<Record<string, unknown>> | undefined;
  /** Fields of `spec` by which it leads again to what these stand in for; undefined: it leads to none of them. */
  restored(route: KubeObject, standIns: readonly KubeObject[]): Readonly<Record<string, unknown>> | undefined;
  /**
   * What the gateway has not done yet with a route or a stand-in, as it is now; undefined: nothing. `refused`: it has
   * judged the object, and reports a problem.
   */
  pending(object: KubeObject): { readonly why: string; readonly refused: boolean } | undefined;
}

/** A route without the change that the agent made to it. */
interface ReleasedRoute {
  readonly route: KubeObject;
  /** The field manager of the change: an apply of nothing under this name withdraws it. */
  readonly fieldManager: string;
}

/**
 * Optional capability: `onboard` and `offboard` find installations of the gateway, and take its routes into a mesh and
 * out of it. Pure: the commands read and write. How a route is judged, and the change that makes it use the identity,
 * come from `routes` of the gateway.
 */
export interface Onboarding<C = unknown, I extends GatewayInstallation = GatewayInstallation> {
  readonly wording: OnboardingWording;
  /** The kinds of its routes. */
  readonly routes: readonly Resource[];
  /** Further kinds to list. */
  readonly reads: readonly Resource[];
  /** Names of ConfigMaps to look for in all namespaces; they are among the `gatewayObjects`. */
  readonly configMaps: readonly string[];
  /** Where its objects of a MeshCertificate are. Only there is the owner label believed. */
  own(home: { readonly namespace: string; readonly name: string }): readonly Scope[];

  installations(lists: ClusterLists): readonly I[];
  /** Settings of an installation, for people. */
  settings(installation: I): readonly string[];
  /** What needs the user's attention. */
  notes(installation: I): readonly string[];

  /** Namespaces whose pods and EndpointSlices `upstreams` needs. */
  namespacesBehind(lists: ClusterLists): readonly string[];
  /** The routes that this installation serves. */
  upstreams(installation: I, objects: RouteObjects): readonly RouteUpstream[];

  /** Fields of `spec` of a new MeshCertificate, in the order in which people read them. */
  specFor(request: JoinRequest<I>): Readonly<Record<string, unknown>>;
  /** An existing `spec` that uses this gateway, extended for further routes. Nothing is removed from it. */
  extended(spec: Readonly<Record<string, unknown>>, request: JoinRequest<I>): Readonly<Record<string, unknown>>;
  /** Fields of `spec` by which it uses this gateway, and otherwise its defaults. */
  readonly named: Readonly<Record<string, unknown>>;
  /** The labels by which routes are selected; undefined: the agent changes no route. */
  selector(config: C): Readonly<Record<string, string>> | undefined;
  /** Fields of `spec` that a route gets in the same write in which it joins, so that nothing depends on defaults. */
  preparation(route: KubeObject): Readonly<Record<string, unknown>>;
  /**
   * Whether the object that a route will use can exist before the route is selected. `onboard` then waits for it, and
   * moves a route only where the MeshCertificate lists its target.
   */
  readonly objectsFirst: boolean;
  /** Absent: routes name an object of the agent. */
  readonly standIns?: StandIns | undefined;
  /** Milliseconds after which a changed route is in use, for sure. */
  readonly settleMs: number;
  /** How it calls an upstream; `object` is what the route uses, if it exists. */
  client(config: C, object: KubeObject | undefined, id: string | undefined): TlsDefaults & { readonly sni?: string };

  /** Whether the route uses one of these objects; `all` are the gateway's objects, of every owner. */
  uses(route: KubeObject, own: readonly KubeObject[], all: readonly KubeObject[]): boolean;
  /** Undefined: the agent has not changed it. */
  released(route: KubeObject): ReleasedRoute | undefined;
  /** A merge patch of `spec` after which the agent changes no routes; undefined: it changes none. */
  deselected(spec: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> | undefined;
}
