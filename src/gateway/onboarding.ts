import type { KubeObject, Resource } from '../core/object.ts';
import type { TlsDefaults } from '../mesh/adapter.ts';
import type { TargetRefusal, Workload } from '../mesh/targeting.ts';
import type { Scope } from './input.ts';

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
export interface ReleasedRoute {
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
