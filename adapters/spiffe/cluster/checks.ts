import { type AgentPod, agentsFor, mayRunDriver } from '../../../src/mesh/agent-pod.ts';
import { fields, type KubeObject, text } from '../../../src/mesh/kube-object.ts';
import type { CheckedObjects, ObjectCheck } from '../../../src/mesh/object-check.ts';
import { type Mounted, volumesOf } from '../../../src/mesh/workload.ts';
import { spireAgentIn } from './discover.ts';

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

export const checks: readonly ObjectCheck[] = [
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
