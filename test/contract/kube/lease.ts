import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/async/clock.ts';
import { recorder } from '../../../src/kube/events.ts';
import { campaign, type LeaseTerm } from '../../../src/kube/lease.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { silentLog } from '../../../src/mesh/log.ts';
import { type Bench, MANAGER, stopAfter } from './target.ts';

export function leaseContract(bench: Bench): void {
  const common = { clock: systemClock, random: Math.random, log: silentLog };

  describe('leases', () => {
    const lease = (namespace: string, renewTime: string) => ({
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: 'a', namespace },
      spec: { holderIdentity: 'x', leaseDurationSeconds: 10, renewTime },
    });

    it('accept a time of six digits and refuse one of three', async () => {
      const namespace = await bench.namespace();
      await assert.rejects(bench.kube.create(lease(namespace, '2026-01-01T00:00:00.123Z'), MANAGER), { status: 400 });
      await bench.kube.create(lease(namespace, '2026-01-01T00:00:00.123000Z'), MANAGER);
    });

    it('are held by one of two at a time and handed over on a clean stop', async (test) => {
      const namespace = await bench.namespace();
      const stops = [stopAfter(test), stopAfter(test)] as const;
      const options = (identity: string) => ({ ...common, namespace, name: 'meshcert', identity });
      const first = campaign(bench.kube, options('one'), stops[0].signal);
      await elected(first);
      const second = campaign(bench.kube, options('two'), stops[1].signal);
      assert.equal(first.isLeader(), true);
      assert.equal(second.isLeader(), false);
      const term = first.term;
      assert.equal(term?.aborted, false);
      stops[0].abort();
      await first.ended;
      assert.equal(term?.aborted, true);
      assert.equal(first.isLeader(), false);
      await elected(second);
      assert.equal(second.holder, second.identity);
      stops[1].abort();
      await second.ended;
      const { items } = await bench.kube.list(RESOURCES.leases, { namespace });
      const spec = items[0]?.spec as { holderIdentity?: string; leaseTransitions?: number };
      assert.equal(spec.holderIdentity ?? '', '');
      assert.equal(spec.leaseTransitions, 1);
    });
  });

  describe('events', () => {
    it('are recorded once and counted when repeated', async (test) => {
      const namespace = await bench.namespace();
      const stop = stopAfter(test);
      const events = recorder(bench.kube, { ...common, component: 'meshcert', instance: 'pod-1', signal: stop.signal });
      const about = {
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        namespace,
        name: 'istio',
        uid: 'u-1',
      };
      events.event(about, 'Normal', 'Published', 'published a new identity');
      await events.flush();
      events.event(about, 'Normal', 'Published', 'published a new identity');
      events.event(about, 'Warning', 'IssueFailed', 'the CA is down');
      await events.flush();
      assert.equal(events.dropped, 0);
      const { items } = await bench.kube.list(RESOURCES.events, {
        namespace,
        fieldSelector: 'involvedObject.name=istio,involvedObject.uid=u-1',
      });
      const seen = items.map((item) => `${item.type} ${item.reason} ×${item.count}`).sort();
      assert.deepEqual(seen, ['Normal Published ×2', 'Warning IssueFailed ×1']);
      stop.abort();
    });
  });
}

async function elected(leadership: LeaseTerm): Promise<void> {
  for await (const leading of leadership.changes()) if (leading) return;
}
