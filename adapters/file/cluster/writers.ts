import { parse } from 'yaml';
import { type Fields, fields, type KubeObject, listOfFields, text } from '../../../src/mesh/kube-object.ts';
import {
  containerFields,
  mountedAt,
  mountedConfigMaps,
  settingOf,
  volumesOf,
  workloadSpec,
} from '../../../src/mesh/workload.ts';
import { type FilePaths, LAYOUTS } from './layouts.ts';

/** What writes certificates into a volume of a pod. */
export interface VolumeWriter {
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
export function writerOf(workload: KubeObject, volume: Fields, parts: ClusterParts): VolumeWriter | undefined {
  return (
    csiWriter(volume, parts.workloads) ??
    podCertificate(volume) ??
    (volume.emptyDir === undefined ? undefined : (sidecar(workload, volume) ?? spiffeHelper(workload, volume, parts)))
  );
}

/** Flags of the container of csi-driver-spiffe, by name; undefined where no workload runs it for this driver. */
export function csiDriverFlags(
  workloads: readonly KubeObject[],
  driver: string,
): ReadonlyMap<string, string> | undefined {
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

export const csiDriverOf = (volume: Fields): string | undefined => text(fields(volume.csi).driver);
export const isSpiffeDriver = (driver: string, workloads: readonly KubeObject[]): boolean =>
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

export const NO_ROOTS =
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

export const spiffeHelpersIn = (workload: KubeObject): readonly Fields[] =>
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
export const writersIn = (workload: KubeObject, parts: ClusterParts) =>
  volumesOf(workload).flatMap((volume) => {
    const writer = writerOf(workload, volume, parts);
    return writer ? [{ volume, writer }] : [];
  });
