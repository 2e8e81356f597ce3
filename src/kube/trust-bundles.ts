import { MeshError } from '../mesh/error.ts';
import { fields, type KubeObject, listOfFields, text } from '../mesh/kube-object.ts';
import type { Kube, Resource } from './api.ts';
import { RESOURCES } from './resources.ts';
import { KubeError } from './transport/error.ts';

/** Newest first: v1 is served from Kubernetes 1.37 on, v1beta1 from 1.33 on where it is switched on. */
const VERSIONS: readonly Resource[] = [RESOURCES.clusterTrustBundles, RESOURCES.betaClusterTrustBundles];

/** ClusterTrustBundles in the version that this API server serves; throws ERR_MESH_UNSUPPORTED where it serves none. */
export async function servedTrustBundles(kube: Kube, name: string, signal: AbortSignal): Promise<Resource> {
  for (const resource of VERSIONS) {
    const version = await kube.raw(`/apis/${resource.apiVersion}`, signal).catch((error: unknown) => {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    });
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
