import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { SpireAuthority } from '../../sandbox/spiffe/authority.ts';
import { BrokerApi, type BrokerApiOptions } from '../../sandbox/spiffe/broker-api.ts';
import { WorkloadApi } from '../../sandbox/spiffe/workload-api.ts';
import type { Checking, Source } from '../../src/mesh/adapter.ts';
import { leafOf } from '../../src/mesh/identity.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { next, refused } from '../../test/support/spiffe-values.ts';
import { spiffe } from './adapter.ts';

const HOUR = 3_600_000;
const BROKER = 'spiffe://example.org/meshcert';
const GATEWAY = 'spiffe://example.org/gateway';
const OBJECT = { plural: 'deployments', group: 'apps', name: 'gateway' };

describe('identities from the Broker API', { timeout: 30_000 }, () => {
  let clock: FakeClock;
  let host: RecordingHost;
  let authority: SpireAuthority;
  let workloadApi: WorkloadApi;
  let broker: BrokerApi;
  let directory: string;
  let opened: (Source & Checking)[];
  const path = (name: string) => join(directory, name);

  beforeEach(async () => {
    clock = new FakeClock(Date.now());
    host = new RecordingHost(clock);
    const lives = { leafLifetimeMs: HOUR, caLifetimeMs: 24 * HOUR };
    authority = new SpireAuthority({ clock, trustDomain: 'example.org', ...lives });
    directory = await mkdtemp(join(tmpdir(), 'meshcert-broker-'));
    opened = [];
    const listen = { path: path('agent.sock') };
    workloadApi = await WorkloadApi.start({ clock, authority, listen, entries: [{ id: BROKER }] });
    await start();
  });
  afterEach(async () => {
    for (const one of opened) await one[Symbol.asyncDispose]();
    await broker.stop();
    await workloadApi.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const start = async (options: Partial<BrokerApiOptions> = {}) => {
    await broker?.stop();
    broker = await BrokerApi.start({ authority, listen: { path: path('broker.sock') }, brokers: [BROKER], ...options });
    broker.objects.set('deployments.apps/emissary/gateway', GATEWAY);
  };
  const watch = (brokerConfig: object = {}, config: object = {}) => {
    const given = { socket: path('agent.sock'), ...config };
    const parsed = spiffe.config.parse({
      ...given,
      broker: { socket: path('broker.sock'), object: OBJECT, ...brokerConfig },
    });
    const one = spiffe.open(parsed, host) as Source & Checking;
    opened.push(one);
    return one.watch(new AbortController().signal)[Symbol.asyncIterator]();
  };

  it('are those of the object, for an agent that proves itself by its own SVID', async () => {
    const values = watch();
    const first = await next(values);
    assert.equal(first.id, GATEWAY);
    assert.deepEqual(broker.callers, [BROKER]);
    broker.rotate();
    assert.notEqual(leafOf(await next(values)).fingerprint, leafOf(first).fingerprint);
  });

  it('come over TCP to any host, since TLS protects them', async () => {
    await start({ listen: { port: 0 } });
    assert.equal((await next(watch({ socket: undefined, address: broker.address }))).id, GATEWAY);
  });

  it('are requested for objects of the own namespace only', async () => {
    host.namespace = 'elsewhere';
    await refused(watch(), 'ERR_MESH_DENIED', /NOT_FOUND; the object does not exist/);
  });

  it('are denied to an agent that is no broker', async () => {
    await start({ brokers: [] });
    await refused(watch(), 'ERR_MESH_DENIED', /PERMISSION_DENIED; the agent of SPIRE does not let this broker/);
  });

  it('are not requested from a server that is no SPIRE agent of the trust domain, unless it is named', async () => {
    const serverId = 'spiffe://example.org/imposter';
    await start({ serverId });
    await refused(watch(), 'ERR_MESH_TLS', /the two do not trust each other/);
    assert.deepEqual(broker.callers, []);
    await refused(watch({ serverId: `${serverId}/other` }), 'ERR_MESH_TLS', /the two do not trust each other/);
    assert.equal((await next(watch({ serverId }))).id, GATEWAY);
  });

  it('are not requested from a server of another authority', async () => {
    const options = { clock, trustDomain: 'example.org', leafLifetimeMs: HOUR, caLifetimeMs: HOUR };
    await start({ authority: new SpireAuthority(options) });
    await refused(watch(), 'ERR_MESH_TLS', /the two do not trust each other/);
  });

  it('need one SVID of the agent, or clientId', async () => {
    workloadApi.setEntries([{ id: BROKER }, { id: `${BROKER}/other` }]);
    await refused(watch(), 'ERR_MESH_CONFIG', /Workload API at .* offers several identities; set broker.clientId to/);
    assert.equal((await next(watch({ clientId: BROKER }))).id, GATEWAY);
    workloadApi.setEntries([]);
    await refused(watch(), 'ERR_MESH_DENIED', /Workload API .* no registration entry matches this process/);
  });

  it('are what the rest of the configuration says', async () => {
    await refused(watch({}, { id: `${GATEWAY}/x` }), 'ERR_MESH_DENIED', /Broker API at .* offers no identity for/);
  });

  it('need both addresses', () => {
    const config = spiffe.config.parse({
      socket: '/agent.sock',
      broker: { address: 'spire-agent.spire:8443', object: { name: 'gateway-0' } },
    });
    assert.deepEqual(config.broker?.object, { plural: 'pods', group: 'core', name: 'gateway-0' });
    assert.deepEqual(spiffe.needs(config, host), [
      { kind: 'address', address: 'unix:/agent.sock', field: 'spiffe.socket' },
      { kind: 'address', address: 'spire-agent.spire:8443', field: 'spiffe.broker.address' },
    ]);
  });
});
