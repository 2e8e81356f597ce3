import type { Pods } from '../../../src/mesh/cluster.ts';
import { containerNames, workloadSpec } from '../../../src/mesh/workload.ts';

const STATUS = 'consul.hashicorp.com/connect-inject-status';
const INJECT = 'consul.hashicorp.com/connect-inject';

export const pods: Pods = {
  membership(pod) {
    const { labels = {}, annotations = {} } = pod.metadata;
    const injected =
      labels[STATUS] === 'injected' ||
      annotations[STATUS] === 'injected' ||
      containerNames(pod).has('consul-dataplane');
    return injected ? { name: 'consul' } : undefined;
  },
  injected(workload) {
    const { labels = {}, annotations = {} } = workloadSpec(workload).template?.metadata ?? {};
    return (labels[INJECT] ?? annotations[INJECT]) === 'true';
  },
  notInjected: {},
};
