import { type AgentPod, agentsFor, mayRunDriver } from '../../../src/mesh/agent-pod.ts';
import { fields, type KubeObject, listOfFields, text } from '../../../src/mesh/kube-object.ts';
import type { CheckedObjects, ObjectCheck } from '../../../src/mesh/object-check.ts';
import { containerFields, type Mounted } from '../../../src/mesh/workload.ts';
import { type FileNames, pathsOf } from './layouts.ts';
import { csiDriverFlags, csiDriverOf, NO_ROOTS } from './writers.ts';

interface UsedFile {
  readonly object: KubeObject;
  readonly path: string;
  readonly agent: AgentPod;
  /** Absent: no volume of the agent has the file. */
  readonly mounted: Mounted | undefined;
}

/** The files of a MeshCertificate; none where they cannot be read from it. */
function filesOf({ spec }: KubeObject): readonly string[] {
  const given = fields(fields(spec).file);
  const names = Object.values(given);
  if (names.length === 0 || names.some((one) => typeof one !== 'string')) return [];
  const { certificate, key, bundle } = pathsOf(given as FileNames);
  return [...new Set([certificate, key, bundle])].filter((path) => path !== '');
}

/** Each file of a MeshCertificate, in each agent that reconciles it. */
function* files(objects: CheckedObjects): Iterable<UsedFile> {
  for (const object of objects.all('MeshCertificate')) {
    for (const agent of agentsFor(objects, object)) {
      for (const path of filesOf(object)) yield { object, path, agent, mounted: agent.mountedAt(path) };
    }
  }
}

/** The volumes that hold them, each once for each MeshCertificate. */
function volumes(objects: CheckedObjects) {
  const mounted = [...files(objects)].flatMap((one) => (one.mounted ? [{ ...one, volume: one.mounted.volume }] : []));
  const keyOf = ({ object: { metadata }, agent, volume }: (typeof mounted)[number]) =>
    [metadata.namespace, metadata.name, agent.title, volume.name].join('|');
  return new Map(mounted.map((one) => [keyOf(one), one])).values();
}

export const checks: readonly ObjectCheck[] = [
  {
    code: 'MC7101',
    severity: 'error',
    title: 'The agent does not mount the files',
    *run(objects) {
      for (const { object, path, agent, mounted } of files(objects)) {
        if (mounted) continue;
        yield {
          object,
          message: `no volume of ${agent.title} is mounted at ${path} or above it: the agent finds no file there (ERR_MESH_UNAVAILABLE)`,
          fix: 'mount the volume that the files are written to (values extraVolumes and extraVolumeMounts; docs/files.md)',
        };
      }
    },
  },
  {
    code: 'MC7102',
    severity: 'error',
    title: 'The agent may not read files in this directory',
    *run(objects) {
      for (const { object, path, agent } of files(objects)) {
        if (agent.filesBelow.some((one) => path.startsWith(`${one.replace(/(?<!\/)\/+$/, '')}/`))) continue;
        yield {
          object,
          message: `${path} is not below ${agent.filesBelow.join(' or ')}, where ${agent.title} lets custom resources name files (ERR_MESH_CONFIG)`,
          fix: `mount the files there, or start the agent with --files-below`,
        };
      }
    },
  },
  {
    code: 'MC7103',
    severity: 'error',
    title: 'csi-driver-spiffe writes no roots',
    *run(objects) {
      for (const { object, volume } of volumes(objects)) {
        const driver = csiDriverOf(volume);
        const flags = driver === undefined ? undefined : csiDriverFlags(objects.all('DaemonSet'), driver);
        if (flags?.get('source-ca-bundle') !== '') continue;
        yield {
          object,
          message: `the volume ${text(volume.name)} has a certificate and a key, but no file with the roots: nothing is published`,
          fix: NO_ROOTS,
        };
      }
    },
  },
  {
    code: 'MC7104',
    severity: 'error',
    title: 'No DaemonSet runs the CSI driver of the files',
    *run(objects) {
      for (const { object, agent, volume } of volumes(objects)) {
        const driver = csiDriverOf(volume);
        if (driver === undefined || mayRunDriver(objects, driver)) continue;
        yield {
          object,
          message: `${agent.title} has a volume of the CSI driver ${driver}, which no DaemonSet runs: its pods cannot start`,
          fix: 'install the driver, or take the files from another volume',
        };
      }
    },
  },
  {
    code: 'MC7105',
    severity: 'error',
    title: 'No other container of the pod writes the files',
    *run(objects) {
      for (const { object, agent, volume } of volumes(objects)) {
        if (volume.emptyDir === undefined || isShared(agent.workload, volume.name)) continue;
        yield {
          object,
          message: `the volume ${text(volume.name)} of ${agent.title} is an emptyDir that only the agent mounts: the files never appear`,
          fix: 'run the agent as a container of the pod whose sidecar writes the files (mode: sidecar), or mount the volume in that sidecar',
        };
      }
    },
  },
];

/** Whether a second container mounts it, or a sidecar will that is injected later. */
function isShared(workload: KubeObject, volume: unknown): boolean {
  const { initContainers } = fields(fields(fields(workload.spec).template).spec);
  const containers = [...containerFields(workload), ...listOfFields(initContainers)];
  const mounts = containers.filter((one) => listOfFields(one.volumeMounts).some(({ name }) => name === volume));
  const annotations = fields(fields(fields(fields(workload.spec).template).metadata).annotations);
  return mounts.length > 1 || text(annotations['sidecar.istio.io/userVolumeMount'])?.includes(`"${volume}"`) === true;
}
