import { after, before, describe } from 'node:test';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { accessContract } from './kube/access.ts';
import { applyContract } from './kube/apply.ts';
import { definitionContract } from './kube/definitions.ts';
import { leaseContract } from './kube/lease.ts';
import { objectContract } from './kube/objects.ts';
import { type Bench, type KubeTarget, makeNamespace } from './kube/target.ts';
import { trustBundleContract } from './kube/trust-bundles.ts';
import { watchContract } from './kube/watch.ts';

export type { KubeTarget } from './kube/target.ts';

/** What src/kube relies on, tested on one API server. The sandbox and the real one must both pass. */
export function kubeContract(name: string, start: () => Promise<{ target: KubeTarget; stop(): Promise<void> }>): void {
  describe(`the Kubernetes API of ${name}`, { timeout: 180_000 }, () => {
    let running: Awaited<ReturnType<typeof start>>;
    let kube: Kube;
    const others: Kube[] = [];
    before(async () => {
      running = await start();
      kube = connect({ kubeconfigText: running.target.kubeconfig(), userAgent: 'contract/1' });
    });
    after(async () => {
      for (const one of [kube, ...others]) one.close();
      await running.stop();
    });
    const bench: Bench = {
      get target() {
        return running.target;
      },
      get kube() {
        return kube;
      },
      connectAs(token) {
        const other = connect({ kubeconfigText: running.target.kubeconfig(token), userAgent: 'contract-other/1' });
        others.push(other);
        return other;
      },
      namespace: () => makeNamespace(kube),
    };
    objectContract(bench);
    applyContract(bench);
    watchContract(bench);
    definitionContract(bench);
    accessContract(bench);
    leaseContract(bench);
    trustBundleContract(bench);
  });
}
