import type { AgentMount, ClusterObjects, Discover, Installation } from '../../../src/mesh/cluster.ts';
import { type Fields, fields, type KubeObject, text } from '../../../src/mesh/kube-object.ts';
import { containerFields, mountedAt, mountedConfigMaps, settingOf, versionOf } from '../../../src/mesh/workload.ts';

/** SPIRE's agents, one on each node. */
interface SpireInstallation extends Installation {
  /** Of the Workload API, on the node. */
  readonly socket: string;
  readonly trustDomain: string | undefined;
  /** Name of the SPIFFE CSI driver by which pods can mount the directory of the socket; absent: there is none. */
  readonly csiDriver: string | undefined;
}

const DEFAULT_SOCKET = '/run/spire/agent-sockets/spire-agent.sock';
const DEFAULT_DRIVER = 'csi.spiffe.io';
/** Where the agent's pods mount the directory of the socket by the CSI driver. */
const CSI_MOUNT = '/spiffe-workload-api';
const VOLUME = 'workload-api';

const imageOf = (container: Fields): string => text(container.image) ?? '';
const containerWith = (workload: KubeObject, image: RegExp) =>
  workload.kind === 'DaemonSet' ? containerFields(workload).find((one) => image.test(imageOf(one))) : undefined;

export const spireAgentIn = (workload: KubeObject) => containerWith(workload, /(^|\/)spire-agent(:|@|$)/);

/** The name of the CSI driver that a workload runs, if it does. */
export function csiDriverIn(workload: KubeObject): string | undefined {
  const container = containerWith(workload, /(^|\/)spiffe-csi-driver(:|@|$)/);
  if (!container) return undefined;
  const args = Array.isArray(container.args) ? container.args.map(String) : [];
  const at = args.findIndex((one) => /^--?plugin-name(=|$)/.test(one));
  return at < 0 ? DEFAULT_DRIVER : (/^[^=]*=(.+)$/.exec(args[at] ?? '')?.[1] ?? args[at + 1] ?? DEFAULT_DRIVER);
}

function findSpire({ workloads, configMaps }: Pick<ClusterObjects, 'workloads' | 'configMaps'>): SpireInstallation[] {
  const csiDriver = workloads.map(csiDriverIn).find((name) => name !== undefined);
  return workloads.flatMap((workload) => {
    const container = spireAgentIn(workload);
    if (!container) return [];
    const { namespace = '' } = workload.metadata;
    const names = mountedConfigMaps(workload);
    const configuration = configMaps
      .filter(({ metadata }) => metadata.namespace === namespace && names.includes(metadata.name))
      .flatMap(({ data }) => Object.values(fields(data)))
      .filter((one) => typeof one === 'string')
      .join('\n');
    return {
      mesh: 'spiffe',
      namespace,
      version: versionOf(imageOf(container)),
      problem:
        settingOf(configuration, 'disable_workload_api') === 'true'
          ? 'its Workload API is off (disable_workload_api)'
          : undefined,
      socket: onNode(workload, container, settingOf(configuration, 'socket_path')) ?? DEFAULT_SOCKET,
      trustDomain: trustDomainIn(configuration),
      csiDriver,
    };
  });
}

function trustDomainIn(configuration: string): string | undefined {
  const given = settingOf(configuration, 'trust_domain') ?? '';
  return /^[a-z0-9._-]+$/.test(given) ? given : undefined;
}

/** Where a path of the agent's container is on its node. */
function onNode(workload: KubeObject, container: Fields, path: string | undefined): string | undefined {
  const mounted = path === undefined ? undefined : mountedAt(workload, container, path);
  const host = text(fields(mounted?.volume.hostPath).path);
  return mounted && host && `${host.replace(/(?<!\/)\/+$/, '')}/${mounted.rest}`;
}

/** Where the agent's pods have the socket. */
const socketOf = ({ socket, csiDriver }: SpireInstallation): string =>
  csiDriver === undefined ? socket : `${CSI_MOUNT}/${socket.slice(socket.lastIndexOf('/') + 1)}`;

function mountOf({ socket, csiDriver }: SpireInstallation): AgentMount {
  if (csiDriver !== undefined) {
    return { volume: { name: VOLUME, csi: { driver: csiDriver, readOnly: true } }, mountPath: CSI_MOUNT };
  }
  const directory = socket.slice(0, socket.lastIndexOf('/'));
  return { volume: { name: VOLUME, hostPath: { path: directory, type: 'Directory' } }, mountPath: directory };
}

export const discover: Discover<SpireInstallation> = {
  sign: 'the DaemonSet of the SPIRE agent',
  configMaps: [],
  reads: ({ workloads }) =>
    workloads.filter(spireAgentIn).flatMap((workload) =>
      mountedConfigMaps(workload).map((name) => ({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        namespace: workload.metadata.namespace,
        name,
      })),
    ),
  installations: findSpire,
  show: (installation) => {
    const { version, namespace, socket, trustDomain, csiDriver } = installation;
    const { mountPath } = mountOf(installation);
    return [
      `SPIRE agent${version === undefined ? '' : ` ${version}`} in ${namespace}`,
      `Workload API ${socket}${trustDomain === undefined ? '' : `, trust domain ${trustDomain}`}`,
      csiDriver === undefined
        ? `its directory must be mounted in the agent's pods at ${mountPath}, and the pods registered (docs/spiffe.md)`
        : `CSI driver ${csiDriver}: its volume must be mounted in the agent's pods at ${mountPath}, and the pods registered (docs/spiffe.md)`,
    ];
  },
  configFor: (installation) => ({
    socket: socketOf(installation),
    ...(installation.trustDomain === undefined ? {} : { trustDomain: installation.trustDomain }),
  }),
  mounts: (installation) => [mountOf(installation)],
};
