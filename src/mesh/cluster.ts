import {
  type Fields,
  fields,
  hasLabels,
  type KubeObject,
  listOfFields,
  type ObjectRef,
  text,
} from '../objects/objects.ts';
import { formatSpiffeId, parseSpiffeId } from '../pki/names.ts';
import type { CheckedObjects } from './object-check.ts';

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

const IMAGE = /(?:^|\/)meshcert(?:[:@]|$)/;
/** Below which custom resources may name files unless `--files-below` says otherwise. */
export const FILES_BELOW = '/var/run/secrets/meshcert';

/** A workload that runs the agent, as its manifest describes it. */
export class AgentPod {
  readonly workload: KubeObject;
  readonly #container: Fields;
  readonly #argv: readonly string[];

  constructor(workload: KubeObject, container: Fields) {
    this.workload = workload;
    this.#container = container;
    this.#argv = argvOf(container);
  }

  /** `Deployment edge/meshcert`. */
  get title(): string {
    const { kind, metadata } = this.workload;
    return `${kind} ${metadata.namespace ?? 'default'}/${metadata.name}`;
  }

  /** The value of the first of these flags that is given. */
  flag(...names: readonly string[]): string | undefined {
    for (const [at, one] of this.#argv.entries()) {
      const named = names.find((name) => one === name || one.startsWith(`${name}=`));
      if (named) return one === named ? this.#argv[at + 1] : one.slice(named.length + 1);
    }
    return undefined;
  }

  /** Each value of a flag. */
  all(name: string): readonly string[] {
    return this.#argv.flatMap((one, at) => {
      if (one === name) return this.#argv[at + 1] ?? [];
      return one.startsWith(`${name}=`) ? one.slice(name.length + 1) : [];
    });
  }

  /** Whether one of these flags without a value is given. */
  on(...names: readonly string[]): boolean {
    return this.#argv.some((one) => names.includes(one) || names.includes(one.replace(/=true$/, '')));
  }

  get namespace(): string {
    return this.flag('--namespace', '-n') ?? this.workload.metadata.namespace ?? 'default';
  }

  /** Namespaces whose MeshCertificates it reconciles; undefined: all. */
  get namespaces(): readonly string[] | undefined {
    if (this.on('--all-namespaces', '-A')) return undefined;
    return this.flag('--watch-namespaces')?.split(',') ?? [this.namespace];
  }

  /** Directories below which custom resources may name files. */
  get filesBelow(): readonly string[] {
    return (this.flag('--files-below') ?? FILES_BELOW).split(',');
  }

  /** Where its container mounts a volume of this name. */
  mountPathOf(volume: string): string | undefined {
    const mount = listOfFields(this.#container.volumeMounts).find(({ name }) => name === volume);
    return text(mount?.mountPath)?.replace(/(?<!.\/)(?<=.)\/+$/, '');
  }

  /** The volume in which its container has this path. */
  mountedAt(path: string): Mounted | undefined {
    return mountedAt(this.workload, this.#container, path);
  }
}

/** The agents among the workloads: by image, or by command. */
export const agentPodsOf = (workloads: readonly KubeObject[]): readonly AgentPod[] =>
  workloads.flatMap((workload) => {
    if (workload.kind !== 'Deployment' && workload.kind !== 'DaemonSet') return [];
    const container = containerFields(workload).find(isAgent);
    return container ? [new AgentPod(workload, container)] : [];
  });

/** Those among the objects of a check that reconcile this MeshCertificate. */
export const agentsFor = (
  { all }: Pick<CheckedObjects, 'all'>,
  { metadata }: Pick<KubeObject, 'metadata'>,
): readonly AgentPod[] =>
  agentPodsOf([...all('Deployment'), ...all('DaemonSet')]).filter(
    ({ namespaces }) => namespaces?.includes(metadata.namespace ?? '') ?? true,
  );

/** Whether a DaemonSet runs this CSI driver, or none is known that could. */
export const mayRunDriver = ({ all }: Pick<CheckedObjects, 'all'>, driver: string): boolean => {
  const daemonSets = all('DaemonSet');
  return daemonSets.length === 0 || daemonSets.some(({ spec }) => JSON.stringify(spec).includes(driver));
};

const argvOf = (container: Fields): string[] =>
  [container.command, container.args].flat().filter((one) => typeof one === 'string');

function isAgent(container: Fields): boolean {
  const argv = argvOf(container);
  const ours = IMAGE.test(text(container.image) ?? '') || argv.some((one) => /(^|\/)meshcert(\.js)?$/.test(one));
  return ours && argv.includes('agent');
}

interface EnvVar {
  readonly name: string;
  readonly value?: string;
}

interface Container {
  readonly name: string;
  readonly image?: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env?: readonly EnvVar[];
}

interface PodSpec {
  readonly serviceAccountName?: string;
  readonly containers?: readonly Container[];
  readonly initContainers?: readonly Container[];
}

interface WorkloadSpec {
  readonly replicas?: number;
  readonly selector?: { readonly matchLabels?: Readonly<Record<string, string>> };
  readonly template?: {
    readonly metadata?: {
      readonly labels?: Readonly<Record<string, string>>;
      readonly annotations?: Readonly<Record<string, string>>;
    };
    readonly spec?: PodSpec;
  };
}

/** The part of the spec of a Deployment, DaemonSet or StatefulSet that is used here. */
export const workloadSpec = (workload: KubeObject): WorkloadSpec => (workload.spec ?? {}) as WorkloadSpec;

export const containersOf = (workload: KubeObject): readonly Container[] =>
  workloadSpec(workload).template?.spec?.containers ?? [];

const podSpecOf = (workload: KubeObject): Fields => fields(fields(fields(workload.spec).template).spec);

/** The containers of what may have any shape. */
export const containerFields = (workload: KubeObject): readonly Fields[] =>
  listOfFields(podSpecOf(workload).containers);

/** The volumes of a workload's pods. */
export const volumesOf = (workload: KubeObject): readonly Fields[] => listOfFields(podSpecOf(workload).volumes);

/** A path of a container: the volume that it is in, and where in the volume; '' is the volume itself. */
export interface Mounted {
  readonly volume: Fields;
  readonly rest: string;
}

/** Undefined where no volume of the workload is mounted at this path of the container, or above it. */
export function mountedAt(workload: KubeObject, container: Fields, path: string): Mounted | undefined {
  const mounts = listOfFields(container.volumeMounts)
    .map((mount) => ({ ...mount, at: (text(mount.mountPath) ?? '').replace(/(?<!\/)\/+$/, '') }))
    .filter(({ at }) => at !== '' && `${path}/`.startsWith(`${at}/`))
    .sort((a, b) => b.at.length - a.at.length);
  const [mount] = mounts as readonly (Fields & { readonly at: string })[];
  const volume = mount && volumesOf(workload).find(({ name }) => name === mount.name);
  if (!mount || !volume) return undefined;
  return { volume, rest: [text(mount.subPath), path.slice(mount.at.length + 1)].filter(Boolean).join('/') };
}

/** ConfigMaps that a workload mounts. */
export const mountedConfigMaps = (workload: KubeObject): readonly string[] =>
  volumesOf(workload).flatMap(({ configMap }) => text(fields(configMap).name) ?? []);

const SETTING = /(?<![^\s{,"])([A-Za-z_]+)"?\s*[=:]\s*(?:"([^"]*)"|(\w+))/g;

/** The first setting of this name, in HCL or in its form in JSON. */
export function settingOf(configuration: string, name: string): string | undefined {
  for (const [, key, quoted, plain] of configuration.matchAll(SETTING)) if (key === name) return quoted ?? plain;
  return undefined;
}

/** Names of the containers of a pod, including sidecars that are init containers. */
export function containerNames(pod: KubeObject): ReadonlySet<string> {
  const { containers = [], initContainers = [] } = (pod.spec ?? {}) as PodSpec;
  return new Set([...containers, ...initContainers].map(({ name }) => name));
}

/** Labels of the workload, merged over those of its pods. */
export const labelsOf = (workload: KubeObject): Readonly<Record<string, string>> => ({
  ...workloadSpec(workload).template?.metadata?.labels,
  ...workload.metadata.labels,
});

/** The value given in the manifest; one that comes from elsewhere is not known here. */
export const envOf = (container: Container | undefined, name: string): string | undefined =>
  container?.env?.find((one) => one.name === name)?.value;

/** `1.24.1` of `docker.io/example/server:1.24.1-distroless@sha256:…`; undefined for a digest or a moving tag. */
export function versionOf(image: string | undefined): string | undefined {
  const tag = /:([^/:]+)$/.exec(image?.split('@')[0] ?? '')?.[1];
  return /^v?(\d+\.\d+(\.\d+)?)/.exec(tag ?? '')?.[1];
}

export const selectsPod = (workload: KubeObject, pod: KubeObject): boolean => {
  const labels = workloadSpec(workload).selector?.matchLabels ?? {};
  return (
    Object.keys(labels).length > 0 && pod.metadata.namespace === workload.metadata.namespace && hasLabels(pod, labels)
  );
};

/** A pod behind a Service, as far as a mesh needs it to name the certificate that the pod presents. */
export interface Workload {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Why the gateway cannot use mTLS to a port of a workload; the message ends with the next step. */
export interface TargetRefusal {
  readonly code: string;
  readonly message: string;
}

/**
 * The name that a workload presents. A `path` is that of a SPIFFE ID in the trust domain of the gateway's own; a
 * `sibling` is the gateway's own SPIFFE ID with another last segment.
 */
export type PeerName =
  | { readonly path: string }
  | { readonly sibling: string }
  | { readonly uri: string }
  | { readonly dns: string };

/** The name as a certificate has it. Undefined: `own`, the name of the gateway, is no SPIFFE ID and determines it. */
export function peerNameText(name: PeerName, own: string): string | undefined {
  if ('dns' in name) return name.dns;
  if ('uri' in name) return name.uri;
  const id = parseSpiffeId(own);
  if (!id) return undefined;
  const path = 'path' in name ? name.path : id.path.slice(0, id.path.lastIndexOf('/') + 1) + name.sibling;
  return formatSpiffeId({ trustDomain: id.trustDomain, path });
}

/** A target that the user listed: it has an object of the gateway whether or not a route needs it yet. */
export interface ListedTarget {
  readonly id: string;
  readonly serviceAccount: string;
  readonly namespace: string;
  /** The exact name of that object. */
  readonly contextName?: string | undefined;
  /** Stands for account and namespace in the made-up name of that object. */
  readonly name?: string | undefined;
}

/** How a mesh names the workloads that the gateway calls. Pure: a later change of the mesh is another value. */
export interface TargetRules {
  /** Whether unlisted workloads may be targets too. */
  readonly discover: boolean;
  readonly listed: readonly ListedTarget[];
  /** The name that the workload's certificate carries and that the gateway sends as SNI. `port` is the pod's. */
  identify(workload: Workload, port: number): { readonly id: string } | TargetRefusal;
}

/**
 * Optional capability, detected by presence: a mesh whose servers are distinguished by SNI, so that the gateway needs
 * one TLS context for each target instead of one for the mesh.
 */
export interface Targeting {
  /** The rules now and whenever they change; ends by the signal or by throwing a MeshError. */
  targets(signal: AbortSignal): AsyncIterable<TargetRules>;
}

export function isTargeting(opened: object): opened is Targeting {
  return 'targets' in opened;
}
