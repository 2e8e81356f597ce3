import type { GatewayFields } from '../config/schema/gateway-fields.ts';
import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { KubeObject, ObjectRef, Resource } from '../core/object.ts';
import type { Diagnosis } from './diagnosis.ts';
import type { GatewayInput, PublicationInput, ReferenceInput, RouteInput, Scope, SecretUse } from './input.ts';
import type { Loading } from './loading.ts';

/** Trust before identity, both before what names them, and routes last; retiring goes backwards. */
export const ORDER = { trust: 1, identity: 2, gateway: 3 } as const;

/** What stands in the cluster, as far as it was asked for. */
export interface ObservedObjects {
  /** Routes that concern the MeshCertificate. */
  readonly routes: readonly KubeObject[];
  /** Objects of the gateway's own kinds that carry the MeshCertificate's owner label, needed or not. */
  readonly own: readonly KubeObject[];
  /** What was found in the scopes of `behind`, of this kind. */
  behind(kind: string): readonly KubeObject[];
  /** Namespaces whose objects are not known, and why. */
  readonly unseen: ReadonlyMap<string, string>;
}

/** A change to a route: fields of somebody else's object, set by server-side apply and by nothing else. */
export interface RouteChange {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly fieldManager: string;
}

/** Where a route leads. */
export interface RouteTarget {
  /** The object of ours that the route uses, or will once it stands. */
  readonly object: ObjectRef;
  /** The identity of the workload behind it, where the mesh tells. */
  readonly id?: string | undefined;
  /** What the route has set when it uses the object. */
  readonly change: RouteChange;
  /** It is set already. */
  readonly isSet: boolean;
}

/** The judgement of one route that uses, or should use, the identity. */
export interface RouteVerdict {
  readonly route: KubeObject;
  /** The upstream as the user wrote it. */
  readonly service: string;
  /** Whether the MeshCertificate selects it. */
  readonly selected: boolean;
  /** The object, of ours or of others, that it uses now. */
  readonly uses?: string | undefined;
  /** What it uses is ours, so that it would lose mTLS with it. */
  readonly dependsOn?: ObjectRef | undefined;
  readonly outcome:
    | { readonly target: RouteTarget }
    /** Why it is left alone; the message ends with the next step. */
    | { readonly code: string; readonly message: string };
}

export interface RouteJudgement<T> {
  readonly verdicts: readonly RouteVerdict[];
  /** What the routes need of the publication, for `desired`; sorted, so that equal ones are equal. */
  readonly targets: readonly T[];
}

/** The routes of a gateway. Pure: everything is judged from what was observed. */
export interface Routes<C, T> {
  /** Where routes, and the objects of the gateway's own that they use, are looked for. */
  scopes(input: GatewayInput<C>): { readonly routes: readonly Scope[]; readonly own: readonly Scope[] };
  /** Picks the routes that are selected or use an object of ours. */
  concern(input: RouteInput<C>, own: readonly KubeObject[]): (route: KubeObject) => boolean;
  /** What lies behind these routes and is needed to judge them. It may stay unseen. */
  behind(input: RouteInput<C>, seen: Pick<ObservedObjects, 'routes' | 'own'>): readonly Scope[];
  judge(input: RouteInput<C>, observed: ObservedObjects): RouteJudgement<T>;
  /** The workloads that have an object of their own, and its name, for status. */
  identities(targets: readonly T[]): readonly { readonly id: string; readonly object: string }[];
}

/** The state of one route, for status, Events and the condition `Referenced`. */
export interface RouteState {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly service: string;
  /** Name of the object that it uses, or will. */
  readonly object?: string | undefined;
  readonly id?: string | undefined;
  /**
   * `set`: uses its object. `waiting`: will, once the object stands. `left`: selected but left alone, `code` and
   * `message` say why. `named`: not selected, but uses one of our objects.
   */
  readonly state: 'set' | 'waiting' | 'left' | 'named';
  readonly code?: string | undefined;
  readonly message?: string | undefined;
}

/** What status and messages say of this kind of gateway. */
export interface Wording {
  /** Everything that must be listed before something is retired. */
  readonly everything: string;
  /** How a user takes a route away from the identity. */
  readonly release: string;
  /** What the log says when an object is deleted that no route needs. */
  readonly orphan: string;
  /** What becomes of its routes where an object of its own is missing. */
  readonly missing: string;
  /** The reasons that `referenced` gives; docs/runbook.md has an entry for each. */
  readonly reasons: readonly string[];
  /** The condition `Referenced`; `left` are those of the routes that are left alone. */
  referenced(
    routes: readonly RouteState[],
    left: readonly RouteState[],
  ): { readonly status: 'True' | 'False'; readonly reason: string; readonly message: string };
}

/**
 * One kind of gateway: the objects that make it use an identity, the routes that use them, and how it is seen that it
 * does. Everything is pure and synchronous; the agent does the reading and the writing. `C` is its part of a
 * MeshCertificate, `T` what its routes need of a publication, which only the gateway itself looks into.
 */
export interface Gateway<C = unknown, T = unknown> extends GatewayFields<C> {
  /** What people call it. */
  readonly title: string;
  /** The kinds that come with it; objects of them are written at a distance from Secrets. */
  readonly resources: readonly Resource[];
  /**
   * Its own objects in the order of writing, after the Secrets. Equal inputs are equal objects. Throws a GatewayError
   * for what it would misread.
   */
  desired(input: PublicationInput<C, T>): readonly KubeObject[];
  /** Why it would misread a Secret of this name, or undefined. */
  secretNameProblem(name: string): string | undefined;
  /** Names at least everything that `desired` returns for the same input, in the order of writing. */
  references(input: ReferenceInput<C, T>): readonly ObjectRef[];
  readonly routes: Routes<C, T>;
  /**
   * Milliseconds between a write of a Secret and one of its own objects, so that it does not see both at once; 0:
   * it does not matter.
   */
  readonly batchGapMs: number;
  /** The Secrets that an object of its own kinds names. */
  secretsNamedBy(object: KubeObject): readonly SecretUse[];
  /** What to install when the cluster does not serve its kinds. */
  readonly definitions: string;
  readonly wording: Wording;
  /** Optional skill: `doctor` knows the traps of its objects. */
  readonly diagnosis?: Diagnosis | undefined;
  /** Optional skill: it can be seen whether the gateway uses what is published. */
  readonly loading?: Loading<C> | undefined;
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

/** The gateway that an object comes with, or undefined for what Kubernetes has of its own. */
export function gatewayOf(
  { apiVersion, kind }: { readonly apiVersion: string; readonly kind: string },
  gateways: readonly Gateway[],
): Gateway | undefined {
  return gateways.find(({ resources }) => resources.some((one) => one.apiVersion === apiVersion && one.kind === kind));
}
