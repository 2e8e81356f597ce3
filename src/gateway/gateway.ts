import type { GatewayFields } from '../config/schema/gateway-fields.ts';
import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { KubeObject, ObjectRef, Resource } from '../core/object.ts';
import type { PeerName } from '../mesh/targeting.ts';
import type { Diagnosis } from './diagnosis.ts';
import type { GatewayInput, PublicationInput, ReferenceInput, RouteInput, Scope, SecretUse } from './input.ts';
import type { Loading } from './loading.ts';
import type { Onboarding } from './onboarding.ts';

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
  readonly outcome:
    | { readonly target: RouteTarget }
    /** Why it is not changed; the message ends with the next step. */
    | { readonly code: string; readonly message: string };
}

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

/** The state of one route, for status, Events and the condition `Referenced`. */
export interface RouteState {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly service: string;
  /** Name of the object that it uses, or will use. */
  readonly object?: string | undefined;
  readonly id?: string | undefined;
  /**
   * `set`: uses its object. `waiting`: will use it once the object exists. `left`: selected but not changed, `code` and
   * `message` say why. `named`: not selected, but uses one of our objects.
   */
  readonly state: 'set' | 'waiting' | 'left' | 'named';
  /** What it connects to with the identity; absent while it does not use it. */
  readonly upstreams?: readonly RouteDestination[] | undefined;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
}

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
  { apiVersion, kind }: { readonly apiVersion: string; readonly kind: string },
  gateways: readonly Gateway[],
): Gateway | undefined {
  return gateways.find(({ resources }) => resources.some((one) => one.apiVersion === apiVersion && one.kind === kind));
}
