import type { KubeObject, ObjectRef } from './kube-object.ts';

/** Objects of a cluster by which a mesh is recognised. */
export interface ClusterObjects {
  readonly namespaces: readonly KubeObject[];
  /** Deployments, DaemonSets and StatefulSets. */
  readonly workloads: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly configMaps: readonly KubeObject[];
  /** The workloads whose pods are gateways. */
  readonly gatewayWorkloads: readonly KubeObject[];
  /** Directories of certificates that the user named, and the files in them; undefined: not visible from here. */
  readonly directories: ReadonlyMap<string, readonly string[] | undefined>;
  /** PEM of `tls.crt` of the Secrets in `reads`, by `<namespace>/<name>`. */
  readonly certificates: ReadonlyMap<string, string>;
}

/** One installation of a mesh that a gateway can join. An adapter adds its own fields. */
export interface Installation {
  readonly mesh: string;
  readonly namespace: string;
  readonly version: string | undefined;
  /** Why it would not issue a certificate, if that is known. */
  readonly problem: string | undefined;
  /** Joined only where no other mesh is found, or where it is asked for. */
  readonly lastResort?: boolean;
}

/** A volume, and where the agent's pods must mount it. */
export interface AgentMount {
  readonly volume: Readonly<Record<string, unknown>> & { readonly name: string };
  readonly mountPath: string;
}

/** A ServiceAccount behind a route of the gateway. */
export interface Account {
  readonly serviceAccount: string;
  readonly namespace: string;
}

/** How onboarding finds a mesh, and the configuration it writes to join it. Pure. */
export interface Discover<I extends Installation = Installation> {
  /** The object that shows an installation, such as its Deployment; for the message that none was found. */
  readonly sign: string;
  /** Names of ConfigMaps to look for in all namespaces. */
  readonly configMaps: readonly string[];
  /** ConfigMaps, and Secrets of which `tls.crt` is read, in addition to the lists. */
  reads(objects: Pick<ClusterObjects, 'workloads' | 'gatewayWorkloads'>): readonly ObjectRef[];
  /** The one that a gateway should join comes first. */
  installations(objects: ClusterObjects): readonly I[];
  /** Lines for people. The first one follows the name of the mesh. */
  show(installation: I): readonly string[];
  /** `spec.<mesh>` of a gateway that runs under this account of its own namespace; `targets` are behind its routes. */
  configFor(installation: I, serviceAccount: string, targets: readonly Account[]): Readonly<Record<string, unknown>>;
  /** What the agent's pods must mount for that configuration; absent: nothing. */
  mounts?(installation: I): readonly AgentMount[];
  /** An existing configuration with these targets added; absent: targets are not part of the configuration. */
  withTargets?(
    config: Readonly<Record<string, unknown>>,
    targets: readonly Account[],
  ): Readonly<Record<string, unknown>>;
  /** Further lines for people about the mesh in this cluster. */
  remarks?(objects: Pick<ClusterObjects, 'namespaces'>): readonly string[];
}

/** How a pod belongs to a mesh. */
export interface Membership {
  /** For people: the name of the mesh, or of a mode of it. */
  readonly name: string;
  /** Why a gateway outside of the mesh cannot reach the pod with the identity of the mesh; absent: it can. */
  readonly refusal?: { readonly code: string; readonly message: string };
}

/** How a mesh injects pods. Pure. */
export interface Pods {
  /** Determined from what the injector leaves on a pod. `namespace` is the object of the pod's namespace. */
  membership(pod: KubeObject, namespace: KubeObject | undefined): Membership | undefined;
  /** Whether pods of this workload get a sidecar at their next start. */
  injected(workload: KubeObject, namespace: KubeObject | undefined): boolean;
  /**
   * How to keep the sidecar of this workload from intercepting its outgoing connections; undefined if there is nothing
   * to do.
   */
  intercepts?(workload: KubeObject): string | undefined;
  /** Annotations that prevent the injection of a sidecar. */
  readonly notInjected: Readonly<Record<string, string>>;
}

/** What is known about an upstream whose certificate is to be judged. */
export interface Upstream {
  readonly sni: string | undefined;
  /** The ServiceAccounts of its pods. */
  readonly accounts: readonly Account[];
  /** The SPIFFE trust domain of the gateway's own certificate. */
  readonly trustDomain: string | undefined;
}
