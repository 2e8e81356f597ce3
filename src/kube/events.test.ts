import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { silentLog } from '../mesh/log.ts';
import { connect } from './client.ts';
import { recorder } from './events.ts';
import { RESOURCES } from './resources.ts';

const ISTIO = {
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  namespace: 'emissary',
  name: 'istio',
  uid: 'u',
};

async function rig(test: TestContext) {
  const api = await startKubeApi({ namespaces: ['emissary'], tls: false });
  const clock = new FakeClock();
  const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'events-test/1', clock });
  const stop = new AbortController();
  const events = recorder(kube, {
    component: 'meshcert',
    instance: 'pod-1',
    clock,
    log: silentLog,
    signal: stop.signal,
  });
  test.after(async () => {
    stop.abort();
    kube.close();
    await api.stop();
  });
  const stored = async () => (await kube.list(RESOURCES.events, { namespace: 'emissary' })).items;
  return { api, clock, events, stored, stop };
}

describe('the event recorder', () => {
  it('writes what kubectl describe looks for', async (test) => {
    const { events, stored } = await rig(test);
    events.event(ISTIO, 'Warning', 'IssueFailed', 'ERR_MESH_DENIED: the CA refused');
    await events.flush();
    const [event] = await stored();
    assert.deepEqual(event?.involvedObject, ISTIO);
    assert.equal(event?.type, 'Warning');
    assert.equal(event?.reason, 'IssueFailed');
    assert.deepEqual(event?.source, { component: 'meshcert' });
    assert.equal(event?.reportingInstance, 'pod-1');
    assert.equal(event?.firstTimestamp, '2026-01-01T00:00:00Z');
  });

  it('counts repetitions instead of repeating them', async (test) => {
    const { api, clock, events, stored } = await rig(test);
    for (let round = 0; round < 5; round++) {
      events.event(ISTIO, 'Normal', 'Published', 'a new identity');
      await events.flush();
      await clock.advance(60_000);
    }
    const all = await stored();
    assert.equal(all.length, 1);
    assert.equal(all[0]?.count, 5);
    assert.equal(all[0]?.lastTimestamp, '2026-01-01T00:04:00Z');
    assert.deepEqual(api.requests.count({ verb: 'create', resource: 'events' }), 1);
  });

  it('sends one request for all that happens while it is sending', async (test) => {
    const { api, events } = await rig(test);
    for (let round = 0; round < 5; round++) events.event(ISTIO, 'Normal', 'Published', 'a new identity');
    await events.flush();
    assert.equal(api.requests.count({ resource: 'events' }), 1);
  });

  it('begins a new Event after ten quiet minutes, and when the old one has expired', async (test) => {
    const { api, clock, events, stored } = await rig(test);
    events.event(ISTIO, 'Normal', 'Published', 'a new identity');
    await events.flush();
    await clock.advance(600_000);
    events.event(ISTIO, 'Normal', 'Published', 'a new identity');
    await events.flush();
    assert.equal((await stored()).length, 2);
    const lift = api.fault({ match: ({ verb }) => verb === 'patch', status: 404 });
    events.event(ISTIO, 'Normal', 'Published', 'a new identity');
    await events.flush();
    lift();
    assert.equal(api.requests.count({ verb: 'create', resource: 'events' }), 3);
  });

  it('drops a storm about one object but not Events about another', async (test) => {
    const { clock, events, stored } = await rig(test);
    for (let round = 0; round < 100; round++) events.event(ISTIO, 'Warning', 'IssueFailed', `attempt ${round}`);
    events.event({ ...ISTIO, name: 'linkerd' }, 'Normal', 'Published', 'a new identity');
    await events.flush();
    assert.equal(events.dropped, 90);
    assert.equal((await stored()).length, 11);
    await clock.advance(30_000);
    events.event(ISTIO, 'Warning', 'IssueFailed', 'later');
    await events.flush();
    assert.equal(events.dropped, 90);
  });

  it('neither fails nor waits when the API server refuses them', async (test) => {
    const { api, events } = await rig(test);
    api.fault({ status: 403 });
    events.event(ISTIO, 'Normal', 'Published', 'a new identity');
    await events.flush();
    assert.equal(events.dropped, 1);
  });

  it('drops queued Events when it is stopped', async (test) => {
    const { events, stop } = await rig(test);
    stop.abort();
    events.event(ISTIO, 'Normal', 'Published', 'a new identity');
    await events.flush();
  });
});
