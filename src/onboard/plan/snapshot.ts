import type { KubeObject, ObjectRef } from '../../core/object.ts';
import { mappingSpec } from '../../gateway/emissary/reading/kinds.ts';
import { parseService } from '../../gateway/emissary/reading/service.ts';
import { serviceNameOf } from '../../gateway/emissary/routes/service-name.ts';
import { EMISSARY_RESOURCES } from '../../gateway/emissary/spec/resources.ts';
import type { Kube, Resource, Selection } from '../../kube/api.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { ClusterObjects } from '../../mesh/cluster.ts';
import { fields, text } from '../../mesh/kube-object.ts';

/** Something that could not be read, and therefore may exist. */
export interface Unseen {
  readonly what: string;
  readonly message: string;
}

/**
 * The part of a cluster that shows the state of its gateway and its meshes. Values only: the same snapshot gives the
 * same plan.
 */
export interface OnboardSnapshot extends ClusterObjects {
  /** Mappings and TCPMappings. */
  readonly mappings: readonly KubeObject[];
  readonly contexts: readonly KubeObject[];
  readonly modules: readonly KubeObject[];
  readonly meshCertificates: readonly KubeObject[];
  /** Whether the API server knows the kind MeshCertificate. */
  readonly defined: boolean;
  /** Of the namespaces behind Mappings, and of the gateway's. */
  readonly pods: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  /** In the gateways' namespaces: an agent holds one. */
  readonly leases: readonly KubeObject[];
  readonly unseen: readonly Unseen[];
}

/**
 * Reads the cluster and changes nothing. A refused read is recorded, not an error; only an API server that does not
 * answer is.
 */
export async function takeSnapshot(
  kube: Kube,
  adapters: readonly Adapter[],
  signal: AbortSignal,
): Promise<OnboardSnapshot> {
  const unseen: Unseen[] = [];
  const list = async (resource: Resource, selection: Selection = {}): Promise<readonly KubeObject[] | undefined> => {
    try {
      return (await kube.list(resource, selection, signal)).items;
    } catch (error) {
      if (!(error instanceof KubeError) || error.status === 0) throw error;
      if (error.status !== 404) unseen.push({ what: describeList(resource, selection), message: error.message });
      return undefined;
    }
  };
  const lists = (resources: readonly Resource[], selection?: Selection) =>
    Promise.all(resources.map((resource) => list(resource, selection))).then((all) => all.flatMap((one) => one ?? []));
  const [namespaces, workloads, services, named, mappings, contexts, modules, meshCertificates] = await Promise.all([
    lists([RESOURCES.namespaces]),
    lists([RESOURCES.deployments, RESOURCES.daemonSets, RESOURCES.statefulSets]),
    lists([RESOURCES.services]),
    Promise.all(
      adapters
        .flatMap((adapter) => adapter.discover?.configMaps ?? [])
        .map((name) => lists([RESOURCES.configMaps], { fieldSelector: `metadata.name=${name}` })),
    ),
    lists([EMISSARY_RESOURCES.mappings, EMISSARY_RESOURCES.tcpMappings]),
    lists([EMISSARY_RESOURCES.tlsContexts]),
    lists([EMISSARY_RESOURCES.modules]),
    list(RESOURCES.meshCertificates),
  ]);
  const get = (ref: ObjectRef) => readOne(kube, ref, unseen, signal);
  const certificates = new Map<string, string>();
  const reads = adapters.flatMap((adapter) => adapter.discover?.reads(workloads) ?? []);
  const homes = [...new Set(namespacesOfGateways(workloads))];
  const behind = [...new Set([...mappings.flatMap(namespaceBehind), ...homes])];
  const [configMaps, , pods, endpointSlices, leases] = await Promise.all([
    Promise.all(reads.filter(({ kind }) => kind === 'ConfigMap').map(get)),
    Promise.all(
      reads
        .filter(({ kind }) => kind === 'Secret')
        .map(async (ref) => {
          const pem = text(fields((await get(ref))?.data)['tls.crt']);
          if (pem) certificates.set(`${ref.namespace}/${ref.name}`, Buffer.from(pem, 'base64').toString('utf8'));
        }),
    ),
    Promise.all(behind.map((namespace) => lists([RESOURCES.pods], { namespace }))),
    Promise.all(behind.map((namespace) => lists([RESOURCES.endpointSlices], { namespace }))),
    Promise.all(homes.map((namespace) => lists([RESOURCES.leases], { namespace }))),
  ]);
  return {
    namespaces,
    workloads,
    services,
    configMaps: [...named.flat(), ...configMaps.filter((one) => one !== undefined)],
    mappings,
    contexts,
    modules,
    meshCertificates: meshCertificates ?? [],
    defined: meshCertificates !== undefined,
    pods: pods.flat(),
    endpointSlices: endpointSlices.flat(),
    leases: leases.flat(),
    certificates,
    unseen,
  };
}

async function readOne(
  kube: Kube,
  ref: ObjectRef,
  unseen: Unseen[],
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  try {
    return await kube.get(ref, signal);
  } catch (error) {
    if (!(error instanceof KubeError) || error.status === 0) throw error;
    unseen.push({ what: `${ref.kind} ${ref.namespace}/${ref.name}`, message: error.message });
    return undefined;
  }
}

const describeList = ({ plural }: Resource, { namespace }: Selection): string =>
  namespace === undefined ? plural : `${plural} in namespace ${namespace}`;

function namespaceBehind(mapping: KubeObject): string[] {
  const { host } = parseService(mappingSpec(mapping).service);
  const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
  return 'code' in name ? [] : [name.namespace];
}

/** Namespaces with an image that looks like the gateway's: their pods show injected sidecars. */
function namespacesOfGateways(workloads: readonly KubeObject[]): string[] {
  const named = workloads.filter((one) => /emissary|ambassador|\/aes/.test(JSON.stringify(one.spec ?? {})));
  return named.map(({ metadata }) => metadata.namespace ?? '');
}
