import { parse } from 'yaml';
import {
  type AgentMount,
  type AgentPod,
  agentPodsOf,
  agentsFor,
  type ClusterObjects,
  containerFields,
  type Discover,
  FILES_BELOW,
  type Installation,
  type Mounted,
  mayRunDriver,
  mountedAt,
  mountedConfigMaps,
  settingOf,
  volumesOf,
  workloadSpec,
} from '../../src/mesh/cluster.ts';
import type { Check, CheckedObjects } from '../../src/mesh/object-check.ts';
import { type Fields, fields, type KubeObject, listOfFields, text } from '../../src/objects/objects.ts';

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

export const checks: readonly Check<CheckedObjects>[] = [
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

/** File names by the program that writes them. */
export const LAYOUTS = {
  istio: { certificate: 'cert-chain.pem', key: 'key.pem', bundle: 'root-cert.pem' },
  tls: { certificate: 'tls.crt', key: 'tls.key', bundle: 'ca.crt' },
  'spiffe-helper': { certificate: 'svid.pem', key: 'svid_key.pem', bundle: 'svid_bundle.pem' },
} as const;

type LayoutName = keyof typeof LAYOUTS;

/** Where certificate, key and roots stand; of a credential bundle, the first two are one file. */
export interface FilePaths {
  readonly certificate: string;
  readonly key: string;
  readonly bundle: string;
}

/** The part of `spec.file` that says where the files are. */
interface FileNames {
  readonly directory?: string | undefined;
  readonly layout?: LayoutName | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  readonly credentialBundle?: string | undefined;
  readonly bundle?: string | undefined;
}

export function pathsOf({ directory, layout = 'tls', ...given }: FileNames): FilePaths {
  if (directory !== undefined) {
    const { certificate, key, bundle } = LAYOUTS[layout];
    const below = (name: string) => `${directory.replace(/(?<!\/)\/+$/, '')}/${name}`;
    return { certificate: below(certificate), key: below(key), bundle: below(bundle) };
  }
  const { certificate = given.credentialBundle ?? '', key = given.credentialBundle ?? '', bundle = '' } = given;
  return { certificate, key, bundle };
}

const split = (path: string): readonly [string, string] => {
  const at = path.lastIndexOf('/') + 1;
  return [path.slice(0, at), path.slice(at)];
};

/** The part of `spec.file` that names these paths, which are absolute. */
function configOf({ certificate, key, bundle }: FilePaths): Readonly<Record<string, string>> {
  if (certificate === key) return { credentialBundle: certificate, bundle };
  const [[directory, leaf], [second, secret], [third, roots]] = [split(certificate), split(key), split(bundle)];
  const layout = Object.entries(LAYOUTS).find(
    ([, names]) => names.certificate === leaf && names.key === secret && names.bundle === roots,
  );
  if (!layout || directory !== second || directory !== third) return { certificate, key, bundle };
  return { directory: directory.replace(/(?<=.)\/$/, ''), layout: layout[0] };
}

/** The layout whose files are all among these; the first one counts. */
const layoutOf = (names: readonly string[]): LayoutName | undefined =>
  (Object.keys(LAYOUTS) as LayoutName[]).find((layout) =>
    Object.values(LAYOUTS[layout]).every((name) => names.includes(name)),
  );

/** What writes certificates into a volume of a pod. */
interface VolumeWriter {
  /** For people, such as `csi-driver-spiffe`. */
  readonly title: string;
  /** Paths in the volume. */
  readonly files: FilePaths;
  /** Only containers of the same pod see what it writes. */
  readonly inPod: boolean;
  readonly problem?: string | undefined;
}

interface ClusterParts {
  readonly workloads: readonly KubeObject[];
  readonly configMaps: readonly KubeObject[];
}

const CSI_DRIVER = 'spiffe.csi.cert-manager.io';
const CSI_IMAGE = /(^|\/)cert-manager-csi-driver-spiffe(:|@|$)/;
const HELPER_IMAGE = /(^|\/)spiffe-helper(:|@|$)/;

const strings = (value: unknown): readonly string[] => (Array.isArray(value) ? value.map(String) : []);

/** Undefined where nothing is known to write certificates there. */
function writerOf(workload: KubeObject, volume: Fields, parts: ClusterParts): VolumeWriter | undefined {
  return (
    csiWriter(volume, parts.workloads) ??
    podCertificate(volume) ??
    (volume.emptyDir === undefined ? undefined : (sidecar(workload, volume) ?? spiffeHelper(workload, volume, parts)))
  );
}

/** Flags of the container of csi-driver-spiffe, by name; undefined where no workload runs it for this driver. */
function csiDriverFlags(workloads: readonly KubeObject[], driver: string): ReadonlyMap<string, string> | undefined {
  for (const container of workloads.flatMap(containerFields)) {
    if (!CSI_IMAGE.test(text(container.image) ?? '')) continue;
    const flags = new Map(
      strings(container.args).flatMap((one) => {
        const [, name, value] = /^--([^=]+)=(.*)$/.exec(one) ?? [];
        return name === undefined ? [] : [[name, value ?? ''] as const];
      }),
    );
    if ((flags.get('csi-driver-name') ?? CSI_DRIVER) === driver) return flags;
  }
  return undefined;
}

const csiDriverOf = (volume: Fields): string | undefined => text(fields(volume.csi).driver);
const isSpiffeDriver = (driver: string, workloads: readonly KubeObject[]): boolean =>
  driver === CSI_DRIVER || csiDriverFlags(workloads, driver) !== undefined;

function csiWriter(volume: Fields, workloads: readonly KubeObject[]): VolumeWriter | undefined {
  const driver = csiDriverOf(volume);
  if (driver === undefined || !isSpiffeDriver(driver, workloads)) return undefined;
  const flags = csiDriverFlags(workloads, driver);
  const { certificate, key, bundle } = LAYOUTS.tls;
  return {
    title: 'csi-driver-spiffe',
    files: {
      certificate: flags?.get('file-name-certificate') ?? certificate,
      key: flags?.get('file-name-key') ?? key,
      bundle: flags?.get('file-name-ca') ?? bundle,
    },
    inPod: false,
    problem: flags?.get('source-ca-bundle') === '' ? NO_ROOTS : undefined,
  };
}

const NO_ROOTS =
  'csi-driver-spiffe writes no roots: set sourceCABundle in its chart (--source-ca-bundle of the driver)';

function podCertificate(volume: Fields): VolumeWriter | undefined {
  const sources = listOfFields(fields(volume.projected).sources);
  const pod = sources.map((one) => fields(one.podCertificate)).find((one) => text(one.signerName) !== undefined);
  if (!pod) return undefined;
  const both = text(pod.credentialBundlePath);
  const bundle = sources.map((one) => text(fields(one.clusterTrustBundle).path)).find((path) => path !== undefined);
  return {
    title: `a PodCertificate of ${text(pod.signerName)}`,
    files: {
      certificate: both ?? text(pod.certificateChainPath) ?? '',
      key: both ?? text(pod.keyPath) ?? '',
      bundle: bundle ?? 'trust-bundle.pem',
    },
    inPod: false,
    problem: bundle === undefined ? 'the volume has no roots: add a clusterTrustBundle to its sources' : undefined,
  };
}

/** A sidecar of Istio with OUTPUT_CERTS, from its environment or from the annotations that configure it. */
function sidecar(workload: KubeObject, volume: Fields): VolumeWriter | undefined {
  const { annotations = {} } = workloadSpec(workload).template?.metadata ?? {};
  const config = fields(parsed(annotations['proxy.istio.io/config']));
  const mounted = fields(parsed(`{mounts: ${annotations['sidecar.istio.io/userVolumeMount'] ?? '[]'}}`));
  const injected = {
    env: [{ name: 'OUTPUT_CERTS', value: fields(config.proxyMetadata).OUTPUT_CERTS }],
    volumeMounts: mounted.mounts,
  };
  for (const container of [...containerFields(workload), injected]) {
    const path = listOfFields(container.env).find(({ name }) => name === 'OUTPUT_CERTS')?.value;
    const at = typeof path === 'string' ? mountedAt(workload, container, path) : undefined;
    if (at?.volume.name !== volume.name || at === undefined) continue;
    const { certificate, key, bundle } = LAYOUTS.istio;
    const below = (name: string) => [at.rest, name].filter(Boolean).join('/');
    const files = { certificate: below(certificate), key: below(key), bundle: below(bundle) };
    return { title: 'a sidecar of Istio (OUTPUT_CERTS)', files, inPod: true };
  }
  return undefined;
}

function parsed(yaml: string | undefined): unknown {
  try {
    return parse(yaml ?? '');
  } catch {
    return undefined;
  }
}

const spiffeHelpersIn = (workload: KubeObject): readonly Fields[] =>
  containerFields(workload).filter((one) => HELPER_IMAGE.test(text(one.image) ?? ''));

function spiffeHelper(workload: KubeObject, volume: Fields, { configMaps }: ClusterParts): VolumeWriter | undefined {
  const names = mountedConfigMaps(workload);
  const texts = configMaps
    .filter(({ metadata }) => metadata.namespace === workload.metadata.namespace && names.includes(metadata.name))
    .flatMap(({ data }) => Object.values(fields(data)))
    .filter((one) => typeof one === 'string');
  for (const helper of spiffeHelpersIn(workload)) {
    for (const configuration of texts) {
      const directory = settingOf(configuration, 'cert_dir');
      const at = directory === undefined ? undefined : mountedAt(workload, helper, directory);
      const file = (setting: string) => settingOf(configuration, setting);
      const [certificate, key, bundle] = ['svid_file_name', 'svid_key_file_name', 'svid_bundle_file_name'].map(file);
      if (at?.volume.name !== volume.name || !certificate || !key || !bundle) continue;
      const below = (name: string) => [at?.rest, name].filter(Boolean).join('/');
      const files = { certificate: below(certificate), key: below(key), bundle: below(bundle) };
      return { title: 'spiffe-helper', files, inPod: true };
    }
  }
  return undefined;
}

/** The volumes of a workload into which certificates are written. */
const writersIn = (workload: KubeObject, parts: ClusterParts) =>
  volumesOf(workload).flatMap((volume) => {
    const writer = writerOf(workload, volume, parts);
    return writer ? [{ volume, writer }] : [];
  });
