import type { Membership, Pods } from '../../../src/mesh/cluster.ts';
import type { KubeObject } from '../../../src/mesh/kube-object.ts';
import { containerNames, containersOf, workloadSpec } from '../../../src/mesh/workload.ts';

/** Namespaces whose pods are in the mesh without a sidecar: mTLS from outside does not reach them that way. */
export const ambientNamespaces = (namespaces: readonly KubeObject[]): string[] =>
  namespaces
    .filter(({ metadata }) => metadata.labels?.['istio.io/dataplane-mode'] === 'ambient')
    .map(({ metadata }) => metadata.name);

/** Namespaces whose pods get a sidecar, each with the revision that it requests. */
export const injectedNamespaces = (namespaces: readonly KubeObject[]): { namespace: string; revision: string }[] =>
  namespaces.flatMap(({ metadata: { name, labels = {} } }) => {
    if (labels['istio-injection'] === 'enabled') return [{ namespace: name, revision: 'default' }];
    const revision = labels['istio.io/rev'];
    return revision === undefined || labels['istio-injection'] === 'disabled' ? [] : [{ namespace: name, revision }];
  });

const AMBIENT: Membership = {
  name: 'ambient',
  refusal: {
    code: 'ERR_TARGET_AMBIENT',
    message:
      "its pods are in ambient mode, where mTLS comes from ztunnel and not from the gateway; label the gateway's own pods istio.io/dataplane-mode=ambient and leave the route as it is",
  },
};

const isAmbient = (namespace: KubeObject | undefined): boolean =>
  namespace?.metadata.labels?.['istio.io/dataplane-mode'] === 'ambient';

const hasInjection = (namespace: KubeObject | undefined): boolean => {
  const { labels = {} } = namespace?.metadata ?? {};
  return labels['istio-injection'] === 'enabled' || labels['istio.io/rev'] !== undefined;
};

export const pods: Pods = {
  membership(pod, namespace) {
    const { labels = {}, annotations = {} } = pod.metadata;
    if (containerNames(pod).has('istio-proxy') || annotations['sidecar.istio.io/status'] !== undefined) {
      return { name: 'istio' };
    }
    const mode = labels['istio.io/dataplane-mode'];
    const enrolled = mode === undefined ? isAmbient(namespace) : mode === 'ambient';
    return annotations['ambient.istio.io/redirection'] === 'enabled' || enrolled ? AMBIENT : undefined;
  },
  injected(workload, namespace) {
    const { labels = {}, annotations = {} } = workloadSpec(workload).template?.metadata ?? {};
    const wanted = labels['sidecar.istio.io/inject'] ?? annotations['sidecar.istio.io/inject'];
    return wanted === 'true' || (hasInjection(namespace) && wanted !== 'false');
  },
  intercepts(workload) {
    const { labels, annotations } = workloadSpec(workload).template?.metadata ?? {};
    const of = { ...annotations, ...labels };
    const sidecar =
      of['sidecar.istio.io/inject'] === 'true' || containersOf(workload).some(({ name }) => name === 'istio-proxy');
    return sidecar && of['traffic.sidecar.istio.io/includeOutboundIPRanges'] !== ''
      ? 'remove the injection, or set traffic.sidecar.istio.io/includeOutboundIPRanges: ""'
      : undefined;
  },
  notInjected: { 'sidecar.istio.io/inject': 'false' },
};
