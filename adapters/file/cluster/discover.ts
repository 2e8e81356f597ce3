import { type AgentPod, agentPodsOf, FILES_BELOW } from '../../../src/mesh/agent-pod.ts';
import type { AgentMount, ClusterObjects, Discover, Installation } from '../../../src/mesh/cluster.ts';
import { type KubeObject, text } from '../../../src/mesh/kube-object.ts';
import { mountedConfigMaps } from '../../../src/mesh/workload.ts';
import { configOf, type FilePaths, layoutOf } from './layouts.ts';
import { spiffeHelpersIn, writersIn } from './writers.ts';

/** Certificates in files that an agent can see, or could. */
interface FoundFiles extends Installation {
  /** Who writes them, and where. */
  readonly found: string;
  /** `spec.file`. */
  readonly config: Readonly<Record<string, string>>;
  /** What the agent's pods must mount; absent: they do already, or it is not known. */
  readonly mount: AgentMount | undefined;
  /** What to do so that the agent sees the files. */
  readonly next: string | undefined;
}

/** Of a PodCertificate and csi-driver-spiffe before those that depend on a further container. */
const byPlace = (a: FoundFiles, b: FoundFiles): number => Number(a.next !== undefined) - Number(b.next !== undefined);

function findFiles(objects: ClusterObjects): FoundFiles[] {
  const agents = agentPodsOf(objects.workloads);
  const workloads = new Set([...agents.map(({ workload }) => workload), ...objects.gatewayWorkloads]);
  const inPods = [...workloads].flatMap((workload) =>
    inWorkload(
      workload,
      agents.find((one) => one.workload === workload),
      objects,
    ),
  );
  return [...[...objects.directories].map(([path, names]) => given(path, names)), ...inPods.sort(byPlace)];
}

function inWorkload(workload: KubeObject, agent: AgentPod | undefined, objects: ClusterObjects): FoundFiles[] {
  const { name, namespace = '' } = workload.metadata;
  return writersIn(workload, objects).flatMap(({ volume, writer }) => {
    const volumeName = text(volume.name);
    if (volumeName === undefined) return [];
    const seenAt = agent?.mountPathOf(volumeName);
    const mountPath = seenAt ?? `${FILES_BELOW}/${volumeName}`;
    const at = (path: string) => `${mountPath}/${path}`;
    const { certificate, key, bundle } = writer.files;
    const paths: FilePaths = { certificate: at(certificate), key: at(key), bundle: at(bundle) };
    const shared = `run the agent as a container of these pods (mode: sidecar), with the volume at ${mountPath}`;
    return {
      mesh: 'file',
      namespace,
      version: undefined,
      problem: writer.problem,
      lastResort: true,
      found: `${writer.title}, volume ${volumeName} of ${workload.kind} ${namespace}/${name}`,
      config: configOf(paths),
      mount: seenAt !== undefined || writer.inPod ? undefined : { volume: { ...volume, name: volumeName }, mountPath },
      next:
        seenAt !== undefined
          ? undefined
          : writer.inPod
            ? shared
            : `the same volume must be mounted in the agent's pods at ${mountPath}`,
    };
  });
}

function given(path: string, names: readonly string[] | undefined): FoundFiles {
  const layout = layoutOf(names ?? []);
  const isBelow = `${path}/`.startsWith(`${FILES_BELOW}/`);
  const below = isBelow ? '' : `; start the agent with --files-below=${path}`;
  return {
    mesh: 'file',
    namespace: '',
    version: undefined,
    problem:
      names === undefined || layout !== undefined
        ? undefined
        : 'it has the files of no known layout; name them with --set file.certificate=…, file.key=… and file.bundle=…',
    found: `directory ${path}`,
    config: { directory: path, ...(layout === undefined ? {} : { layout }) },
    mount: undefined,
    next:
      names === undefined
        ? `not visible from here, so layout tls is assumed (--set file.layout=…); it must be mounted in the agent's pods${below}`
        : isBelow
          ? undefined
          : `the agent reads custom resources' files below ${FILES_BELOW} alone${below}`,
  };
}

export const discover: Discover<FoundFiles> = {
  sign: 'a volume with certificates in the pods of the gateway (docs/files.md)',
  configMaps: [],
  reads: ({ workloads, gatewayWorkloads }) =>
    [...gatewayWorkloads, ...agentPodsOf(workloads).map(({ workload }) => workload)]
      .filter((workload) => spiffeHelpersIn(workload).length > 0)
      .flatMap((workload) =>
        mountedConfigMaps(workload).map((name) => ({
          apiVersion: 'v1',
          kind: 'ConfigMap',
          namespace: workload.metadata.namespace,
          name,
        })),
      ),
  installations: findFiles,
  show: ({ found, next }) => [found, ...(next === undefined ? [] : [next])],
  configFor: ({ config }) => config,
  mounts: ({ mount }) => (mount ? [mount] : []),
};
