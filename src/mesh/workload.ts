import { type Fields, fields, hasLabels, type KubeObject, listOfFields, text } from './kube-object.ts';

interface EnvVar {
  readonly name: string;
  readonly value?: string;
}

export interface Container {
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
