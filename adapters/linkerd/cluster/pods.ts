import type { Pods } from '../../../src/mesh/cluster.ts';
import { containerNames, workloadSpec } from '../../../src/mesh/workload.ts';

export const pods: Pods = {
  membership(pod) {
    const injected =
      pod.metadata.labels?.['linkerd.io/control-plane-ns'] !== undefined || containerNames(pod).has('linkerd-proxy');
    return injected ? { name: 'linkerd' } : undefined;
  },
  injected(workload, namespace) {
    const { labels = {}, annotations = {} } = workloadSpec(workload).template?.metadata ?? {};
    const wanted = labels['linkerd.io/inject'] ?? annotations['linkerd.io/inject'];
    const inherited = namespace?.metadata.annotations?.['linkerd.io/inject'] === 'enabled';
    return wanted === 'enabled' || (inherited && wanted !== 'disabled');
  },
  intercepts(workload) {
    const { labels, annotations } = workloadSpec(workload).template?.metadata ?? {};
    const wanted = { ...annotations, ...labels }['linkerd.io/inject'];
    return wanted === 'enabled' || wanted === 'ingress'
      ? 'remove the injection, or exclude the ports with config.linkerd.io/skip-outbound-ports'
      : undefined;
  },
  notInjected: { 'linkerd.io/inject': 'disabled' },
};
