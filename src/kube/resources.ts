import { gateways } from '../gateways.ts';
import { MeshError } from '../mesh/error.ts';
import { fields, type KubeObject, listOfFields, type ObjectRef, type Resource, text } from '../objects/objects.ts';
import type { Kube, Selection } from './api.ts';

import { absentIsUndefined } from './transport/error.ts';

const core = (kind: string, plural: string, namespaced = true): Resource => ({
  apiVersion: 'v1',
  kind,
  plural,
  namespaced,
});
/** Every kind that we use, in addition to those of the gateways. */
export const RESOURCES = {
  namespaces: core('Namespace', 'namespaces', false),
  secrets: core('Secret', 'secrets'),
  configMaps: core('ConfigMap', 'configmaps'),
  services: core('Service', 'services'),
  pods: core('Pod', 'pods'),
  serviceAccounts: core('ServiceAccount', 'serviceaccounts'),
  events: core('Event', 'events'),
  endpointSlices: {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    plural: 'endpointslices',
    namespaced: true,
  },
  leases: { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', plural: 'leases', namespaced: true },
  deployments: { apiVersion: 'apps/v1', kind: 'Deployment', plural: 'deployments', namespaced: true },
  daemonSets: { apiVersion: 'apps/v1', kind: 'DaemonSet', plural: 'daemonsets', namespaced: true },
  statefulSets: { apiVersion: 'apps/v1', kind: 'StatefulSet', plural: 'statefulsets', namespaced: true },
  roles: { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'Role', plural: 'roles', namespaced: true },
  roleBindings: {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    plural: 'rolebindings',
    namespaced: true,
  },
  clusterRoles: {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    plural: 'clusterroles',
    namespaced: false,
  },
  clusterRoleBindings: {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    plural: 'clusterrolebindings',
    namespaced: false,
  },
  clusterTrustBundles: {
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'ClusterTrustBundle',
    plural: 'clustertrustbundles',
    namespaced: false,
  },
  betaClusterTrustBundles: {
    apiVersion: 'certificates.k8s.io/v1beta1',
    kind: 'ClusterTrustBundle',
    plural: 'clustertrustbundles',
    namespaced: false,
  },
  customResourceDefinitions: {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    plural: 'customresourcedefinitions',
    namespaced: false,
  },
  tokenReviews: {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    plural: 'tokenreviews',
    namespaced: false,
  },
  subjectAccessReviews: {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SubjectAccessReview',
    plural: 'subjectaccessreviews',
    namespaced: false,
  },
  selfSubjectAccessReviews: {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectAccessReview',
    plural: 'selfsubjectaccessreviews',
    namespaced: false,
  },
  meshCertificates: {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    plural: 'meshcertificates',
    namespaced: true,
  },
} as const satisfies Record<string, Resource>;

const ALL: readonly Resource[] = [...Object.values(RESOURCES), ...gateways.flatMap(({ resources }) => resources)];

/** `more`: kinds of gateways that are not built in. */
export function resourceOf(ref: { apiVersion: string; kind: string }, more: readonly Resource[] = []): Resource {
  const found = [...ALL, ...more].find((r) => r.apiVersion === ref.apiVersion && r.kind === ref.kind);
  if (!found) throw new TypeError(`no resource is known for ${ref.apiVersion} ${ref.kind}`);
  return found;
}

/** Path of a collection; without a namespace, of all namespaces. */
export function collectionPath(resource: Resource, namespace: string | undefined): string {
  const root = resource.apiVersion.includes('/') ? `/apis/${resource.apiVersion}` : `/api/${resource.apiVersion}`;
  const place = resource.namespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return `${root}${place}/${resource.plural}`;
}

export function objectPath(
  resource: Resource,
  ref: Pick<ObjectRef, 'name' | 'namespace'>,
  subresource?: string,
): string {
  const tail = subresource === undefined ? '' : `/${subresource}`;
  return `${collectionPath(resource, ref.namespace)}/${encodeURIComponent(ref.name)}${tail}`;
}

/** `?a=b&c=d` of the defined parameters, or nothing. */
export function queryOf(parameters: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) query.set(name, String(value));
  const text = query.toString();
  return text === '' ? '' : `?${text}`;
}

export function selectors({ labelSelector, fieldSelector }: Selection) {
  return { labelSelector, fieldSelector };
}

/** Selects one object by its name: a Role with `resourceNames` permits listing and watching it. */
export function onlyNamed(name: string, namespace: string | undefined): Selection {
  return { namespace, fieldSelector: `metadata.name=${name}` };
}

/** Newest first: v1 is served from Kubernetes 1.37 on, v1beta1 from 1.33 on where it is switched on. */
const VERSIONS: readonly Resource[] = [RESOURCES.clusterTrustBundles, RESOURCES.betaClusterTrustBundles];

/** ClusterTrustBundles in the version that this API server serves; throws ERR_MESH_UNSUPPORTED where it serves none. */
export async function servedTrustBundles(kube: Kube, name: string, signal: AbortSignal): Promise<Resource> {
  for (const resource of VERSIONS) {
    const version = await absentIsUndefined(kube.raw(`/apis/${resource.apiVersion}`, signal));
    if (listOfFields(fields(version).resources).some((one) => one.name === resource.plural)) return resource;
  }
  throw unservedTrustBundle(name);
}

export const unservedTrustBundle = (name: string): MeshError =>
  new MeshError(
    'ERR_MESH_UNSUPPORTED',
    `the API server does not serve ClusterTrustBundles, so ClusterTrustBundle ${name} cannot be read; start it with --feature-gates=ClusterTrustBundle=true and --runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true, or read the roots from another place`,
  );

/** PEM; undefined while the object does not exist or holds nothing. */
export const trustBundleOf = (object: KubeObject | undefined): string | undefined =>
  text(fields(object?.spec).trustBundle);
