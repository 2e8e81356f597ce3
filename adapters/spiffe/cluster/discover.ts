import type { ClusterObjects, Discover, Installation } from '../../../src/mesh/cluster.ts';
import { fields, type KubeObject, listOfFields, text } from '../../../src/mesh/kube-object.ts';
import { containersOf, versionOf, workloadSpec } from '../../../src/mesh/workload.ts';

/** SPIRE's agents, one on each node. */
interface SpireInstallation extends Installation {
  /** Of the Workload API, on the node. */
  readonly socket: string;
  readonly trustDomain: string | undefined;
  /** Whether pods can mount the socket by the SPIFFE CSI driver. */
  readonly hasCsiDriver: boolean;
}

const DEFAULT_SOCKET = '/run/spire/agent-sockets/spire-agent.sock';

const runs = (workload: KubeObject, image: RegExp): boolean =>
  containersOf(workload).some((container) => image.test(text(container.image) ?? ''));

const isAgent = (workload: KubeObject): boolean =>
  workload.kind === 'DaemonSet' && runs(workload, /(^|\/)spire-agent(:|@|$)/);

const isCsiDriver = (workload: KubeObject): boolean =>
  workload.kind === 'DaemonSet' && runs(workload, /(^|\/)spiffe-csi-driver(:|@|$)/);

/** ConfigMaps that a workload mounts. */
const configMapNames = (workload: KubeObject): string[] =>
  volumesOf(workload).flatMap(({ configMap }) => text(fields(configMap).name) ?? []);

function volumesOf(workload: KubeObject): readonly Readonly<Record<string, unknown>>[] {
  const { volumes } = fields(fields(workloadSpec(workload).template).spec);
  return listOfFields(volumes);
}

function findSpire({ workloads, configMaps }: Pick<ClusterObjects, 'workloads' | 'configMaps'>): SpireInstallation[] {
  const hasCsiDriver = workloads.some(isCsiDriver);
  return workloads.filter(isAgent).map((workload) => {
    const { namespace = '' } = workload.metadata;
    const names = configMapNames(workload);
    const configuration = configMaps
      .filter(({ metadata }) => metadata.namespace === namespace && names.includes(metadata.name))
      .flatMap(({ data }) => Object.values(fields(data)))
      .filter((one) => typeof one === 'string')
      .join('\n');
    return {
      mesh: 'spiffe',
      namespace,
      version: versionOf(
        containersOf(workload)
          .map(({ image }) => text(image))
          .find((image) => image?.includes('spire-agent')),
      ),
      problem: settingOf(configuration, 'disable_workload_api', '(true)')
        ? 'its Workload API is off (disable_workload_api)'
        : undefined,
      socket: onNode(workload, settingOf(configuration, 'socket_path', '"([^"]+)"')) ?? DEFAULT_SOCKET,
      trustDomain: settingOf(configuration, 'trust_domain', '"([a-z0-9._-]+)"'),
      hasCsiDriver,
    };
  });
}

/** Of HCL, or of its form in JSON. */
const settingOf = (configuration: string, name: string, value: string): string | undefined =>
  new RegExp(`(?:^|[\\s{,"])${name}"?\\s*[=:]\\s*${value}`).exec(configuration)?.[1];

/** Where a path of the agent's container is on its node. */
function onNode(workload: KubeObject, path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  for (const container of containersOf(workload)) {
    const { volumeMounts } = fields(container);
    const mounts = listOfFields(volumeMounts);
    for (const { name, mountPath } of mounts) {
      const host = text(fields(volumesOf(workload).find((volume) => volume.name === name)?.hostPath).path);
      const below = text(mountPath)?.replace(/\/+$/, '');
      if (host && below !== undefined && path.startsWith(`${below}/`)) {
        return `${host.replace(/\/+$/, '')}${path.slice(below.length)}`;
      }
    }
  }
  return undefined;
}

export const discover: Discover<SpireInstallation> = {
  sign: 'the DaemonSet of the SPIRE agent',
  configMaps: [],
  reads: (workloads) =>
    workloads.filter(isAgent).flatMap((workload) =>
      configMapNames(workload).map((name) => ({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        namespace: workload.metadata.namespace,
        name,
      })),
    ),
  installations: findSpire,
  show: ({ version, namespace, socket, trustDomain, hasCsiDriver }) => [
    `SPIRE agent${version === undefined ? '' : ` ${version}`} in ${namespace}`,
    `Workload API ${socket}${trustDomain === undefined ? '' : `, trust domain ${trustDomain}`}`,
    hasCsiDriver
      ? 'run the agent with the SPIFFE CSI driver or as a DaemonSet, and register its pods (docs/spiffe.md)'
      : 'run the agent as a DaemonSet that mounts the socket, and register its pods (docs/spiffe.md)',
  ],
  configFor: ({ socket, trustDomain }) => ({ socket, ...(trustDomain === undefined ? {} : { trustDomain }) }),
};
