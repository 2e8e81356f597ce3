import { parse } from 'yaml';
import type { ClusterObjects, Discover, Installation } from '../../../src/mesh/cluster.ts';
import { fields, type KubeObject, type ObjectRef, text } from '../../../src/mesh/kube-object.ts';
import { containersOf, envOf, labelsOf, versionOf } from '../../../src/mesh/workload.ts';
import { ambientNamespaces, injectedNamespaces } from './pods.ts';

/** One control plane of Istio that signs certificates, or istio-csr that does it in its place. */
export interface IstioInstallation extends Installation {
  readonly signer: 'istiod' | 'istio-csr';
  /** `default` if there is only one. */
  readonly revision: string;
  /** `host:port` of its CA. */
  readonly address: string;
  readonly trustDomain: string;
  /** istiod's name of this cluster, if it is not the default. */
  readonly clusterId: string | undefined;
  /** Where it publishes its roots. */
  readonly publishes: 'ConfigMap' | 'ClusterTrustBundle';
}

type Objects = Pick<ClusterObjects, 'workloads' | 'services' | 'configMaps'>;

/** Where istiod and istio-csr write their roots, in every namespace. */
export const ROOT_CONFIG_MAP = 'istio-ca-root-cert';

const CA_PORT = 15012;
const CSR_PORT = 443;

export const isIstiod = (workload: KubeObject): boolean =>
  workload.kind === 'Deployment' &&
  (labelsOf(workload).app === 'istiod' || /^istiod(-|$)/.test(workload.metadata.name));

const isCsr = (workload: KubeObject): boolean =>
  workload.kind === 'Deployment' &&
  [labelsOf(workload).app, labelsOf(workload)['app.kubernetes.io/name']].includes('cert-manager-istio-csr');

/** Whether it publishes its roots as a ClusterTrustBundle, in place of a ConfigMap in each namespace. */
export const usesTrustBundle = (istiod: KubeObject): boolean =>
  envOf(containersOf(istiod)[0], 'ENABLE_CLUSTER_TRUST_BUNDLE_API') === 'true';

/** The mesh configuration of each revision. */
function meshConfigs(workloads: readonly KubeObject[]): ObjectRef[] {
  return workloads.filter(isIstiod).map((workload) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    namespace: workload.metadata.namespace,
    name: meshConfigName(revisionOf(workload)),
  }));
}

/** The one to ask first: istio-csr if it exists, since istiod signs nothing there; then the default revision. */
export function findIstio(objects: Objects): IstioInstallation[] {
  const istiods = objects.workloads.filter(isIstiod).map((workload) => istiodOf(workload, objects));
  const trustDomain = istiods[0]?.trustDomain ?? 'cluster.local';
  const signers = objects.workloads.filter(isCsr).map((workload) => csrOf(workload, trustDomain));
  const rank = ({ revision, problem }: IstioInstallation) => (problem ? 2 : revision === 'default' ? 0 : 1);
  return [...signers, ...istiods.toSorted((a, b) => rank(a) - rank(b))];
}

function istiodOf(workload: KubeObject, { services, configMaps }: Objects): IstioInstallation {
  const { namespace = '' } = workload.metadata;
  const revision = revisionOf(workload);
  const [pilot] = containersOf(workload);
  const service = services.find(
    ({ metadata }) => metadata.namespace === namespace && metadata.name === serviceName(revision),
  );
  const config = configMaps.find(
    ({ metadata }) => metadata.namespace === namespace && metadata.name === meshConfigName(revision),
  );
  const clusterId = envOf(pilot, 'CLUSTER_ID');
  return {
    mesh: 'istio',
    signer: 'istiod',
    namespace,
    revision,
    version: versionOf(pilot?.image),
    address: `${service?.metadata.name ?? serviceName(revision)}.${namespace}.svc:${CA_PORT}`,
    trustDomain: trustDomainOf(config),
    clusterId: clusterId === 'Kubernetes' ? undefined : clusterId,
    publishes: usesTrustBundle(workload) ? 'ClusterTrustBundle' : 'ConfigMap',
    problem:
      envOf(pilot, 'ENABLE_CA_SERVER') === 'false'
        ? 'its CA is off (ENABLE_CA_SERVER=false): another signer, such as istio-csr, must issue'
        : undefined,
  };
}

function csrOf({ metadata, ...rest }: KubeObject, trustDomain: string): IstioInstallation {
  const [container] = containersOf({ metadata, ...rest });
  const { name, namespace = '' } = metadata;
  return {
    mesh: 'istio',
    signer: 'istio-csr',
    namespace,
    revision: 'default',
    version: versionOf(container?.image),
    address: `${name}.${namespace}.svc:${CSR_PORT}`,
    trustDomain,
    clusterId: undefined,
    publishes: 'ConfigMap',
    problem: undefined,
  };
}

const revisionOf = (workload: KubeObject): string =>
  workload.metadata.labels?.['istio.io/rev'] ?? labelsOf(workload)['istio.io/rev'] ?? 'default';

const serviceName = (revision: string): string => (revision === 'default' ? 'istiod' : `istiod-${revision}`);
const meshConfigName = (revision: string): string => (revision === 'default' ? 'istio' : `istio-${revision}`);

function trustDomainOf(config: KubeObject | undefined): string {
  try {
    return text(fields(parse(text(fields(config?.data).mesh) ?? '')).trustDomain) ?? 'cluster.local';
  } catch {
    return 'cluster.local';
  }
}

const placed = ({ namespace, revision }: { readonly namespace: string; readonly revision: string }): string =>
  revision === 'default' ? namespace : `${namespace} (${revision})`;

export const discover: Discover<IstioInstallation> = {
  sign: 'istiod',
  configMaps: [],
  reads: ({ workloads }) => meshConfigs(workloads),
  installations: findIstio,
  show({ signer, namespace, version, revision, address, trustDomain }) {
    const release = version === undefined ? '' : ` ${version}`;
    return [
      `${signer}${release} in ${namespace}${signer === 'istiod' ? `, revision ${revision}` : ''}`,
      `CA ${address}, trust domain ${trustDomain}`,
    ];
  },
  configFor: ({ address, clusterId, trustDomain, publishes }, serviceAccount) => ({
    ca: {
      address,
      serviceAccount,
      ...(clusterId === undefined ? {} : { clusterId }),
      ...(publishes === 'ConfigMap' ? {} : { root: { clusterTrustBundle: {} } }),
    },
    ...(trustDomain === 'cluster.local' ? {} : { trustDomain }),
  }),
  remarks({ namespaces }) {
    const injected = injectedNamespaces(namespaces).map(placed);
    const ambient = ambientNamespaces(namespaces);
    return [
      ...(injected.length > 0 ? [`sidecars in ${injected.join(', ')}`] : []),
      ...(ambient.length > 0 ? [`ambient mode in ${ambient.join(', ')}`] : []),
    ];
  },
};
