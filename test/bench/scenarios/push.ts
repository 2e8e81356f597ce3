import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { Kube } from '../../../src/kube/api.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { startBundle, untilPublished } from '../parts/bundle.ts';
import { preciseNow } from '../parts/part.ts';
import { ratioAtMost, row, type Scenario } from '../scenario.ts';
import { quantile } from '../statistics.ts';
import { NAMESPACE, startBare } from './due.ts';

const ID = 'spiffe://cluster.local/ns/pushed/sa/gateway';

export const push: Scenario = {
  id: 'push',
  title: 'From the push of a certificate to every observer seeing it',
  same: 'One watch, independent of both sides, records when the new bytes of a Secret are seen. Ours: from the time at which the SDS server (which behaves like pilot-agent; sandbox, a separate process) sends a new leaf, through the shipped bundle. Theirs: from the time at which a bare process sends one PATCH of such a Secret. The two alternate.',
  async run({ sizes, fleets, say }) {
    const world = await fleets.best;
    await world.populate('pushed', 0);
    await world.populate(NAMESPACE, 0);
    const socket = join(world.dir, 'sds.sock');
    await world.ca.call('pilot', { socket, id: ID });
    const document = {
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'pushed', namespace: 'pushed' },
      spec: { istio: { trustDomain: 'cluster.local', sds: { socket } }, tlsContext: { enabled: false } },
    };
    const config = join(world.dir, 'pushed.yaml');
    await writeFile(config, stringify(document));
    await using bundle = await startBundle(world.kubeconfigFile, [
      '--config',
      config,
      '-n',
      'pushed',
      '--no-leader-elect',
    ]);
    await untilPublished(bundle, 1);
    await using bare = await startBare(world, 0);
    await bare.call('patchOne', { name: 'pushed' });
    using ours = await seen(world.kube, 'pushed', 'pushed-identity');
    using theirs = await seen(world.kube, NAMESPACE, 'pushed');
    say(`${sizes.pushes} pushes and as many patches`);
    const [own, other]: [number[], number[]] = [[], []];
    for (let round = -3; round < sizes.pushes; round++) {
      const next = ours.next();
      const pushed = await world.ca.call('push', undefined);
      const ownMs = (await next) - pushed;
      const otherNext = theirs.next();
      const patched = await bare.call('patchOne', { name: 'pushed' });
      const otherMs = (await otherNext) - patched;
      if (round >= 0) {
        own.push(ownMs);
        other.push(otherMs);
      }
    }
    const p99 = (values: readonly number[]) => [quantile(values, 0.99)];
    const p50 = (values: readonly number[]) => [quantile(values, 0.5)];
    return {
      rows: [
        row(`${world.kind}: p50 of ${sizes.pushes}`, 'ms', p50(own), p50(other), ratioAtMost(2.5)),
        row(`${world.kind}: p99 of ${sizes.pushes}`, 'ms', p99(own), p99(other), ratioAtMost(3)),
        row(`${world.kind}: all, pair by pair`, 'ms', own, other),
      ],
      counts: [],
      notes: [],
    };
  },
};

/** The times at which one Secret's changes are seen. */
async function seen(kube: Kube, namespace: string, name: string) {
  const stop = new AbortController();
  const selection = { namespace, fieldSelector: `metadata.name=${name}` };
  const { resourceVersion } = await kube.list(RESOURCES.secrets, selection);
  let wake: (at: number) => void = () => {};
  const follow = async () => {
    for await (const { type } of kube.watch(RESOURCES.secrets, { ...selection, resourceVersion }, stop.signal)) {
      if (type === 'MODIFIED' || type === 'ADDED') wake(preciseNow());
    }
  };
  follow().catch(() => {});
  return {
    next: () =>
      new Promise<number>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`nothing new in ${namespace}/${name}`)), 30_000);
        wake = (at) => {
          clearTimeout(timer);
          resolve(at);
        };
      }),
    [Symbol.dispose]: () => stop.abort(new Error('over')),
  };
}
