import type { KubeObject } from '../../core/object.ts';
import { containerNames } from './workload.ts';

export const MESHES = ['istio', 'linkerd', 'consul'] as const;
export type MeshName = (typeof MESHES)[number];

/** In which mesh a pod is. `ambient` is Istio without a sidecar. */
export type Membership = MeshName | 'ambient';

/** By what the injectors leave on a pod; more than one is a pod between two meshes. */
export function membershipsOf(pod: KubeObject, ambient: ReadonlySet<string>): Membership[] {
  const { labels = {}, annotations = {}, namespace = '' } = pod.metadata;
  const containers = containerNames(pod);
  const found: Membership[] = [];
  const sidecar = containers.has('istio-proxy') || annotations['sidecar.istio.io/status'] !== undefined;
  if (sidecar) found.push('istio');
  else if (annotations['ambient.istio.io/redirection'] === 'enabled' || inAmbient(labels, namespace, ambient)) {
    found.push('ambient');
  }
  if (labels['linkerd.io/control-plane-ns'] !== undefined || containers.has('linkerd-proxy')) found.push('linkerd');
  if (
    labels['consul.hashicorp.com/connect-inject-status'] === 'injected' ||
    annotations['consul.hashicorp.com/connect-inject-status'] === 'injected' ||
    containers.has('consul-dataplane')
  ) {
    found.push('consul');
  }
  return found;
}

function inAmbient(labels: Readonly<Record<string, string>>, namespace: string, ambient: ReadonlySet<string>): boolean {
  const own = labels['istio.io/dataplane-mode'];
  return own === undefined ? ambient.has(namespace) : own === 'ambient';
}
