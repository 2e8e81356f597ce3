import { type KubeObject, type ObjectRef, OWNER_LABEL } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { RouteObjects } from '../../gateway/onboarding.ts';
import type { Kube, Resource, Selection } from '../../kube/api.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { ClusterObjects } from '../../mesh/cluster.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import { homesOf, onboardable, workloadsOf } from '../discover/gateway.ts';
import { ONBOARD_LABEL } from './document.ts';

/** Something that could not be read, and therefore may exist. */
export interface Unseen {
  readonly what: string;
  readonly message: string;
}

/**
 * The part of a cluster that shows the state of its gateway and its meshes. Values only: the same snapshot gives the
 * same plan.
 */
export interface OnboardSnapshot extends ClusterObjects, RouteObjects {
  readonly meshCertificates: readonly KubeObject[];
  /** Whether the API server knows the kind MeshCertificate. */
  readonly defined: boolean;
  /** In the gateways' namespaces: an agent holds one. */
  readonly leases: readonly KubeObject[];
  /** Roles and bindings of all namespaces that `onboard` created. */
  readonly rights: readonly KubeObject[];
  /** The bindings that may name one of these Roles. */
  readonly bindings: readonly KubeObject[];
  readonly unseen: readonly Unseen[];
  /** Kinds that the API server does not know. */
  readonly unserved: ReadonlySet<string>;
}

/**
 * Reads the cluster and changes nothing. A refused read is recorded, not an error; only an API server that does not
 * answer is.
 */
export async function takeSnapshot(
  kube: Kube,
  {
    adapters,
    gateways,
    directories = new Map(),
  }: {
    readonly adapters: readonly Adapter[];
    readonly gateways: readonly Gateway[];
    readonly directories?: OnboardSnapshot['directories'];
  },
  signal: AbortSignal,
): Promise<OnboardSnapshot> {
  const unseen: Unseen[] = [];
  const unserved = new Set<string>();
  const list = async (resource: Resource, selection: Selection = {}): Promise<readonly KubeObject[] | undefined> => {
    try {
      return (await kube.list(resource, selection, signal)).items;
    } catch (error) {
      if (!(error instanceof KubeError) || error.status === 0) throw error;
      if (error.status === 404) unserved.add(resource.kind);
      else unseen.push({ what: describeList(resource, selection), message: error.message });
      return undefined;
    }
  };
  const lists = (resources: readonly Resource[], selection?: Selection) =>
    Promise.all(resources.map((resource) => list(resource, selection))).then((all) => all.flatMap((one) => one ?? []));
  const [namespaces, workloads, services, named, configurations, gatewayLists, meshCertificates, rights] =
    await Promise.all([
      lists([RESOURCES.namespaces]),
      lists([RESOURCES.deployments, RESOURCES.daemonSets, RESOURCES.statefulSets]),
      lists([RESOURCES.services]),
      Promise.all(
        adapters
          .flatMap((adapter) => adapter.discover?.configMaps ?? [])
          .map((name) => lists([RESOURCES.configMaps], { fieldSelector: `metadata.name=${name}` })),
      ),
      Promise.all(
        onboardable(gateways)
          .flatMap(({ onboarding }) => onboarding.configMaps)
          .map((name) => lists([RESOURCES.configMaps], { fieldSelector: `metadata.name=${name}` })),
      ),
      Promise.all(kindsOf(gateways).map((resource) => lists([resource], ownedOnly(resource)))).then((all) =>
        all.flat(),
      ),
      list(RESOURCES.meshCertificates),
      lists([...ROLES, ...BINDINGS], { labelSelector: ONBOARD_LABEL }),
    ]);
  const get = (ref: ObjectRef) => readOne(kube, ref, unseen, signal);
  const certificates = new Map<string, string>();
  const listed = {
    namespaces,
    workloads,
    services,
    gatewayObjects: [...services, ...gatewayLists, ...configurations.flat()],
  };
  const gatewayWorkloads = workloadsOf(listed, gateways);
  const reads = adapters.flatMap((adapter) => adapter.discover?.reads({ workloads, gatewayWorkloads }) ?? []);
  const homes = homesOf(listed, gateways);
  const routed = onboardable(gateways).flatMap(({ onboarding }) => onboarding.namespacesBehind(listed));
  const behind = [...new Set([...routed, ...homes])];
  // A RoleBinding of any namespace may name a ClusterRole.
  const granted = new Set(rights.map(({ metadata }) => metadata.namespace));
  const [configMaps, , pods, endpointSlices, leases, bindings] = await Promise.all([
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
    granted.has(undefined)
      ? lists(BINDINGS)
      : Promise.all([...granted].map((namespace) => lists([RESOURCES.roleBindings], { namespace }))),
  ]);
  return {
    ...listed,
    gatewayWorkloads,
    directories,
    configMaps: [...named.flat(), ...configMaps.filter((one) => one !== undefined)],
    meshCertificates: meshCertificates ?? [],
    defined: meshCertificates !== undefined,
    pods: pods.flat(),
    endpointSlices: endpointSlices.flat(),
    leases: leases.flat(),
    certificates,
    rights,
    bindings: bindings.flat(),
    unseen,
    unserved,
  };
}

const ROLES = [RESOURCES.roles, RESOURCES.clusterRoles];
const BINDINGS = [RESOURCES.roleBindings, RESOURCES.clusterRoleBindings];

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

/** Of kinds of Kubernetes itself only what the agent has made: there may be very many. */
export const ownedOnly = ({ apiVersion }: Resource): Selection =>
  apiVersion === 'v1' ? { labelSelector: OWNER_LABEL } : {};

/** What the gateways request, each kind once, beside what is listed anyway. */
function kindsOf(gateways: readonly Gateway[]): Resource[] {
  const kinds = onboardable(gateways).flatMap(({ onboarding }) => [
    ...onboarding.routes,
    ...onboarding.reads,
    ...onboarding.own({ namespace: '', name: '' }).map(({ resource }) => resource),
  ]);
  const place = ({ apiVersion, plural }: Resource) => `${apiVersion}/${plural}`;
  const unique = new Map(kinds.map((kind) => [place(kind), kind]));
  unique.delete(place(RESOURCES.services));
  return [...unique.values()];
}
