import type { JsonFields } from './object.ts';
import { builtInShape, type CelShape } from './shape.ts';
import type { Named } from './status.ts';

export interface PrinterColumn {
  readonly name: string;
  readonly type: string;
  readonly jsonPath: string;
  readonly priority?: number;
  readonly description?: string;
}

/** One kind as served in one version. */
export interface Kind extends Named {
  readonly version: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly namespaced: boolean;
  /** Has a status subresource: status and the rest are written separately. */
  readonly status: boolean;
  /** `metadata.generation` counts its changes. */
  readonly generation: boolean;
  /** A PUT must name the version that it replaces. */
  readonly versionRequired: boolean;
  /** Can only be created: reviews. */
  readonly virtual: boolean;
  readonly shape: CelShape;
  /** Structural schema; absent for built-in kinds, whose checks are in `rules.ts`. */
  readonly schema?: JsonFields | undefined;
  readonly columns?: readonly PrinterColumn[] | undefined;
}

export const storageOf = (kind: Named): string => `${kind.group}/${kind.plural}`;
export const apiVersionOf = (kind: Kind): string =>
  kind.group === '' ? kind.version : `${kind.group}/${kind.version}`;

/** The kinds of `kubectl get all`. */
const ALL = new Set(['Pod', 'Service', 'Deployment', 'DaemonSet', 'StatefulSet']);

type Trait = 'cluster' | 'status' | 'generation' | 'versionRequired' | 'virtual';

function builtIn(
  groupVersion: string,
  kind: string,
  plural: string,
  traits: readonly Trait[] = [],
  shortNames: readonly string[] = [],
  columns?: readonly PrinterColumn[],
): Kind {
  const [version = '', group = ''] = groupVersion.split('/').reverse();
  return {
    group,
    version,
    kind,
    plural,
    singular: kind.toLowerCase(),
    shortNames,
    categories: ALL.has(kind) ? ['all'] : [],
    namespaced: !traits.includes('cluster'),
    status: traits.includes('status'),
    generation: traits.includes('generation'),
    versionRequired: traits.includes('versionRequired'),
    virtual: traits.includes('virtual'),
    shape: builtInShape(kind),
    columns,
  };
}

const column = (name: string, jsonPath: string, type = 'string'): PrinterColumn => ({ name, type, jsonPath });
const RBAC = 'rbac.authorization.k8s.io/v1';
const WORKLOAD: readonly Trait[] = ['status', 'generation'];

export type TrustBundleVersion = 'v1' | 'v1beta1';

/** Off unless it is switched on, as up to Kubernetes 1.36. */
export const trustBundleKind = (version: TrustBundleVersion): Kind =>
  builtIn(
    `certificates.k8s.io/${version}`,
    'ClusterTrustBundle',
    'clustertrustbundles',
    ['cluster'],
    [],
    [column('SignerName', '.spec.signerName')],
  );

export const BUILT_IN_KINDS: readonly Kind[] = [
  builtIn('v1', 'Namespace', 'namespaces', ['cluster', 'status'], ['ns'], [column('Status', '.status.phase')]),
  builtIn('v1', 'Secret', 'secrets', [], [], [column('Type', '.type'), column('Data', '.data', 'count')]),
  builtIn('v1', 'ConfigMap', 'configmaps', [], ['cm'], [column('Data', '.data', 'count')]),
  builtIn('v1', 'Service', 'services', ['status'], ['svc']),
  builtIn('v1', 'Pod', 'pods', ['status', 'generation'], ['po'], [column('Status', '.status.phase')]),
  builtIn('v1', 'ServiceAccount', 'serviceaccounts', [], ['sa']),
  builtIn(
    'v1',
    'Event',
    'events',
    [],
    ['ev'],
    [
      column('Type', '.type'),
      column('Reason', '.reason'),
      column('Object', '.involvedObject.name'),
      column('Message', '.message'),
    ],
  ),
  builtIn('discovery.k8s.io/v1', 'EndpointSlice', 'endpointslices', ['generation']),
  builtIn(
    'coordination.k8s.io/v1',
    'Lease',
    'leases',
    ['versionRequired'],
    [],
    [column('Holder', '.spec.holderIdentity')],
  ),
  builtIn('apps/v1', 'Deployment', 'deployments', WORKLOAD, ['deploy']),
  builtIn('apps/v1', 'DaemonSet', 'daemonsets', WORKLOAD, ['ds']),
  builtIn('apps/v1', 'StatefulSet', 'statefulsets', WORKLOAD, ['sts']),
  builtIn(RBAC, 'Role', 'roles'),
  builtIn(RBAC, 'RoleBinding', 'rolebindings'),
  builtIn(RBAC, 'ClusterRole', 'clusterroles', ['cluster']),
  builtIn(RBAC, 'ClusterRoleBinding', 'clusterrolebindings', ['cluster']),
  builtIn('policy/v1', 'PodDisruptionBudget', 'poddisruptionbudgets', WORKLOAD, ['pdb']),
  builtIn('networking.k8s.io/v1', 'NetworkPolicy', 'networkpolicies', ['generation'], ['netpol']),
  builtIn(
    'apiextensions.k8s.io/v1',
    'CustomResourceDefinition',
    'customresourcedefinitions',
    ['cluster', ...WORKLOAD, 'versionRequired'],
    ['crd', 'crds'],
  ),
  builtIn('authentication.k8s.io/v1', 'TokenReview', 'tokenreviews', ['cluster', 'virtual']),
  builtIn('authentication.k8s.io/v1', 'SelfSubjectReview', 'selfsubjectreviews', ['cluster', 'virtual']),
  builtIn('authorization.k8s.io/v1', 'SelfSubjectAccessReview', 'selfsubjectaccessreviews', ['cluster', 'virtual']),
  builtIn('authorization.k8s.io/v1', 'SubjectAccessReview', 'subjectaccessreviews', ['cluster', 'virtual']),
];
