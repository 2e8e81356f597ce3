import { parse } from 'yaml';
import type { KubeObject, ObjectRef } from '../../core/object.ts';
import { fields, text } from '../../gateway/kinds.ts';
import { containersOf, envOf, labelsOf, versionOf } from './workload.ts';

/** One control plane of Istio that signs certificates, or istio-csr that does it in its place. */
export interface IstioFinding {
  readonly mesh: 'istio';
  readonly signer: 'istiod' | 'istio-csr';
  readonly namespace: string;
  /** `default` where there is but one. */
  readonly revision: string;
  readonly version: string | undefined;
  /** `host:port` of its CA. */
  readonly address: string;
  readonly trustDomain: string;
  /** What istiod calls this cluster, where it is not its own default. */
  readonly clusterId: string | undefined;
  /** Why it would not sign, if it is known that it would not. */
  readonly problem: string | undefined;
}

type World = {
  readonly workloads: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly configMaps: readonly KubeObject[];
};

const CA_PORT = 15012;
const CSR_PORT = 443;

const isIstiod = (workload: KubeObject): boolean =>
  workload.kind === 'Deployment' &&
  (labelsOf(workload).app === 'istiod' || /^istiod(-|$)/.test(workload.metadata.name));

const isCsr = (workload: KubeObject): boolean =>
  workload.kind === 'Deployment' &&
  [labelsOf(workload).app, labelsOf(workload)['app.kubernetes.io/name']].includes('cert-manager-istio-csr');

/** What has to be read beside lists: the mesh configuration of each revision. */
export function istioRefs(workloads: readonly KubeObject[]): ObjectRef[] {
  return workloads.filter(isIstiod).map((workload) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    namespace: workload.metadata.namespace,
    name: meshConfigName(revisionOf(workload)),
  }));
}

/** The one to ask first: istio-csr where it is, since istiod signs nothing there; then the default revision. */
export function findIstio(world: World): IstioFinding[] {
  const istiods = world.workloads.filter(isIstiod).map((workload) => istiodOf(workload, world));
  const trustDomain = istiods[0]?.trustDomain ?? 'cluster.local';
  const signers = world.workloads.filter(isCsr).map((workload) => csrOf(workload, trustDomain));
  const rank = ({ revision, problem }: IstioFinding) => (problem ? 2 : revision === 'default' ? 0 : 1);
  return [...signers, ...istiods.toSorted((a, b) => rank(a) - rank(b))];
}

function istiodOf(workload: KubeObject, { services, configMaps }: World): IstioFinding {
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
    problem:
      envOf(pilot, 'ENABLE_CA_SERVER') === 'false'
        ? 'its CA is off (ENABLE_CA_SERVER=false): another signer, such as istio-csr, has to be asked'
        : undefined,
  };
}

function csrOf({ metadata, ...rest }: KubeObject, trustDomain: string): IstioFinding {
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

/** Namespaces whose pods are in the mesh without a sidecar: mTLS from outside does not reach them that way. */
export const ambientNamespaces = (namespaces: readonly KubeObject[]): string[] =>
  namespaces
    .filter(({ metadata }) => metadata.labels?.['istio.io/dataplane-mode'] === 'ambient')
    .map(({ metadata }) => metadata.name);

/** Namespaces whose pods get a sidecar, each with the revision that it asks for. */
export const injectedNamespaces = (namespaces: readonly KubeObject[]): { namespace: string; revision: string }[] =>
  namespaces.flatMap(({ metadata: { name, labels = {} } }) => {
    if (labels['istio-injection'] === 'enabled') return [{ namespace: name, revision: 'default' }];
    const revision = labels['istio.io/rev'];
    return revision === undefined || labels['istio-injection'] === 'disabled' ? [] : [{ namespace: name, revision }];
  });
