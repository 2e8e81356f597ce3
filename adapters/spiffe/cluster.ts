import {
  type AgentMount,
  type AgentPod,
  agentsFor,
  type ClusterObjects,
  containerFields,
  type Discover,
  type Installation,
  type Mounted,
  mayRunDriver,
  mountedAt,
  mountedConfigMaps,
  settingOf,
  versionOf,
  volumesOf,
} from '../../src/mesh/cluster.ts';
import type { Check, CheckedObjects } from '../../src/mesh/object-check.ts';
import { type Fields, fields, type KubeObject, text } from '../../src/objects/objects.ts';

interface UsedSocket {
  readonly object: KubeObject;
  readonly socket: string;
  readonly agent: AgentPod;
  /** Absent: no volume of the agent has the socket. */
  readonly mounted: Mounted | undefined;
}

/** Each socket of a MeshCertificate, in each agent that reconciles it. */
function* sockets(objects: CheckedObjects): Iterable<UsedSocket> {
  for (const object of objects.all('MeshCertificate')) {
    const spec = fields(fields(object.spec).spiffe);
    for (const socket of [text(spec.socket), text(fields(spec.broker).socket)]) {
      if (socket === undefined) continue;
      for (const agent of agentsFor(objects, object)) {
        yield { object, socket, agent, mounted: agent.mountedAt(socket) };
      }
    }
  }
}

export const checks: readonly Check<CheckedObjects>[] = [
  {
    code: 'MC7001',
    severity: 'error',
    title: 'The agent does not mount the socket of the Workload API',
    *run(objects) {
      for (const { object, socket, agent, mounted } of sockets(objects)) {
        if (mounted) continue;
        yield {
          object,
          message: `no volume of ${agent.title} is mounted at ${socket} or above it: the agent cannot connect (ERR_MESH_UNREACHABLE)`,
          fix: 'mount the volume of the SPIFFE CSI driver, or the directory of the socket on the node (values extraVolumes and extraVolumeMounts, or mode: daemonset with socketDirectory; docs/spiffe.md)',
        };
      }
    },
  },
  {
    code: 'MC7002',
    severity: 'error',
    title: 'No DaemonSet runs the CSI driver of the Workload API',
    *run(objects) {
      for (const { object, agent, mounted } of sockets(objects)) {
        const driver = text(fields(mounted?.volume.csi).driver);
        if (driver === undefined || mayRunDriver(objects, driver)) continue;
        yield {
          object,
          message: `${agent.title} has a volume of the CSI driver ${driver}, which no DaemonSet runs: its pods cannot start`,
          fix: `install the driver, or mount the directory of the socket on the node`,
        };
      }
    },
  },
  {
    code: 'MC7003',
    severity: 'error',
    title: 'The SPIRE agent has no directory of the node in common with the socket',
    *run(objects) {
      const spire = objects.all('DaemonSet').filter(spireAgentIn);
      const directories = spire.flatMap(volumesOf).flatMap(({ hostPath }) => text(fields(hostPath).path) ?? []);
      if (directories.length === 0) return;
      for (const { object, agent, mounted } of sockets(objects)) {
        const host = text(fields(mounted?.volume.hostPath).path);
        if (!mounted || host === undefined) continue;
        const onNode = `${host.replace(/(?<!\/)\/+$/, '')}/${mounted.rest}`;
        if (directories.some((one) => onNode.startsWith(`${one.replace(/(?<!\/)\/+$/, '')}/`))) continue;
        yield {
          object,
          message: `${agent.title} looks for the socket at ${onNode} on the node; the SPIRE agent uses ${directories.join(', ')} there`,
          fix: 'mount the directory in which the SPIRE agent has its socket (socket_path in its configuration), and set spec.spiffe.socket to the path in the agent of meshcert',
        };
      }
    },
  },
];

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

const spireAgentIn = (workload: KubeObject) => containerWith(workload, /(^|\/)spire-agent(:|@|$)/);

/** The name of the CSI driver that a workload runs, if it does. */
function csiDriverIn(workload: KubeObject): string | undefined {
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
