import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { drive } from '../../test/support/drive.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { connect } from '../kube/client.ts';
import { silentLog } from '../mesh/log.ts';
import { alone, LeaseLeadership, leadsSomething } from './election.ts';

it('something is led without an election, or while a Lease is held', () => {
  const lease = (isHeld: boolean) => ({ name: 'meshcert', isHeld });
  assert.equal(leadsSomething(alone), true);
  assert.equal(leadsSomething({ ...alone, leases: [lease(false), lease(true)] }), true);
  assert.equal(leadsSomething({ ...alone, leases: [lease(false)] }), false);
});

describe('an election for four shards', () => {
  it('shares them between two replicas, and gives all to the one that is left', async () => {
    const clock = new FakeClock();
    const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary'] });
    const ends: (() => Promise<unknown>)[] = [];
    const replica = (identity: string) => {
      const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', clock });
      const options = { kube, clock, random: () => 0.5, log: silentLog, namespace: 'emissary', name: 'meshcert' };
      const leadership = new LeaseLeadership({ ...options, shards: 4, identity });
      const stop = new AbortController();
      let isOver = false;
      const running = leadership.run(stop.signal).finally(() => {
        isOver = true;
      });
      const end = async () => {
        stop.abort(new Error('stopped'));
        await drive(clock, () => isOver, { what: `the end of ${identity}` });
        await running;
        kube.close();
      };
      ends.push(end);
      const held = () => leadership.leases.filter(({ isHeld }) => isHeld).map(({ name }) => name);
      return { leadership, held, end };
    };
    const keys = Array.from({ length: 20 }, (_, at) => `certificate ${at}`);
    try {
      const a = replica('a');
      await drive(clock, () => a.held().length === 4, { what: 'the first replica to lead everything' });
      let changes = 0;
      a.leadership.onChange(() => changes++);
      const b = replica('b');
      await drive(clock, () => a.held().length === 2 && b.held().length === 2, { what: 'two shards each' });
      assert.ok(changes > 0);
      assert.deepEqual([...a.held(), ...b.held()].sort(), ['meshcert-0', 'meshcert-1', 'meshcert-2', 'meshcert-3']);
      for (const key of keys) assert.notEqual(a.leadership.leads(key), b.leadership.leads(key), key);
      const [foreign = ''] = keys.filter((key) => !a.leadership.leads(key));
      b.leadership.fence(foreign).check();
      assert.throws(() => a.leadership.fence(foreign).check(), { code: 'ERR_LEASE_LOST' });
      await a.end();
      await drive(clock, () => b.held().length === 4, { what: 'the second replica to lead everything' });
      assert.deepEqual(a.held(), []);
    } finally {
      for (const end of ends) await end();
      await api.stop();
    }
  });
});
