import assert from 'node:assert/strict';
import { type AddressInfo, createServer } from 'node:net';
import { describe, it } from 'node:test';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import { type SandboxUpstream, startUpstream } from '../../sandbox/tls/upstream.ts';
import { alone } from '../../src/agent/election.ts';
import { EventSink, MetricsSink } from '../../src/agent/sinks.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { BACKENDS, backend } from '../support/gateway-api.ts';

const WEB = 'spiffe://toy/ns/shop/sa/web';
const IMPOSTOR = 'spiffe://toy/ns/shop/sa/impostor';
const INTERVAL = 10_000;
/** Milliseconds: steps so small that a handshake on loopback completes before the clock times it out. */
const STEP = 50;

/** An agent with one Mapping, and an upstream whose identity can be changed. */
async function start() {
  // TLS judges by the time of the machine.
  const clock = new FakeClock(Date.now() - 30 * 60_000);
  const world = await AgentWorld.start({ objects: ambassadorDefinitions() as object[] }, clock);
  const leaf = (uri: string) => world.mesh.ca.identity({ uris: [uri] });
  let identity = leaf(WEB);
  const upstream = await startUpstream({ identity: () => identity, trust: () => [world.mesh.ca.root] });
  const address = `127.0.0.1:${upstream.port}`;
  map(world, 'web', address);
  return {
    world,
    upstream,
    address,
    become(uri: string) {
      identity = leaf(uri);
    },
    spec: (more: object = {}) => ({
      mappings: { selector: { matchLabels: { mesh: 'istio' } } },
      upstreams: { interval: '10s', identities: [{ service: address, ids: [WEB] }], ...more },
    }),
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await upstream.stop();
    },
  };
}

function map(world: AgentWorld, name: string, address: string): void {
  world.api.put({
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name, namespace: NAMESPACE, labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: `/${name}/`, service: `https://${address}` },
  });
}

const verified = (world: AgentWorld, status: string) => () => world.condition('UpstreamVerified')?.status === status;
const handshakes = ({ counts, requests }: SandboxUpstream) => counts.handshakeFailures + requests;

describe('the upstreams of routes', () => {
  it('are checked at intervals; an impostor with a valid certificate is reported within one, and its end too', async () => {
    await using it = await start();
    const { world, address } = it;
    const events: string[] = [];
    const metrics = createMetrics({ version: 'test' });
    const event = (_about: unknown, type: string, reason: string, message: string) =>
      void events.push(`${type} ${reason}: ${message}`);
    world.run(it.spec(), [new EventSink({ event } as never), new MetricsSink(metrics, world.clock)]);
    await world.untilReady();
    await world.until('the first check', verified(world, 'True'), STEP);
    assert.deepEqual(world.status?.upstreams, [{ address, state: 'ok', id: WEB }]);

    it.become(IMPOSTOR);
    const since = world.clock.now();
    await world.until('the report', verified(world, 'False'), STEP);
    // The handshake itself takes some steps of this clock.
    assert.ok(world.clock.now() - since <= INTERVAL + 5_000, `${world.clock.now() - since} ms`);
    const { reason, message } = world.condition('UpstreamVerified') ?? { reason: '', message: '' };
    assert.equal(reason, 'ProbeUpstreamId');
    assert.match(message, new RegExp(`${address} presents ${IMPOSTOR}, not ${WEB}; .*spec.upstreams.identities`));
    assert.equal(world.status?.upstreams?.[0]?.id, IMPOSTOR);
    assert.equal(world.condition('Ready')?.status, 'True');
    const series = `meshcert_upstream_verified{namespace="emissary",name="istio",upstream="${address}"}`;
    assert.ok(metrics.expose().includes(`${series} 0`), metrics.expose());

    it.become(WEB);
    await world.until('the end of it', verified(world, 'True'), STEP);
    assert.ok(metrics.expose().includes(`${series} 1`));
    assert.deepEqual(
      events.filter((line) => line.includes('Upstream')).map((line) => line.split(':')[0]),
      ['Normal UpstreamVerified', 'Warning UpstreamNotVerified', 'Normal UpstreamVerified'],
    );
  });

  it('of Gateway API must present what their policy requires, with nothing listed', async () => {
    await using it = await start();
    const { world, address, upstream } = it;
    for (const one of gatewayApiDefinitions()) world.api.put(one);
    world.api.put(backend({ endpoints: [{ ip: { address: '127.0.0.1', port: upstream.port } }] }));
    world.run({ gatewayApi: { ...BACKENDS, subjectAltNames: [WEB] }, upstreams: { interval: '10s' } });
    await world.until('the first check', verified(world, 'True'), STEP);
    assert.deepEqual(world.status?.upstreams, [{ address, state: 'ok', id: WEB }]);
    it.become(IMPOSTOR);
    await world.until('the report', verified(world, 'False'), STEP);
    assert.match(world.condition('UpstreamVerified')?.message ?? '', new RegExp(`presents ${IMPOSTOR}, not ${WEB}`));
  });

  it('of Gateway API are all endpoints of a Backend, and the message names the one where an impostor answers', async () => {
    await using it = await start();
    const { world, address, upstream } = it;
    const impostor = await startUpstream({
      identity: () => world.mesh.ca.identity({ uris: [IMPOSTOR] }),
      trust: () => [world.mesh.ca.root],
    });
    await using _impostor = { [Symbol.asyncDispose]: () => impostor.stop() };
    for (const one of gatewayApiDefinitions()) world.api.put(one);
    const endpoints = [upstream, impostor].map(({ port }) => ({ ip: { address: '127.0.0.1', port } }));
    world.api.put(backend({ endpoints }));
    world.run({ gatewayApi: { ...BACKENDS, subjectAltNames: [WEB] }, upstreams: { interval: '10s' } });
    await world.until('both', () => world.status?.upstreams?.length === 2, STEP);
    const wrong = `127.0.0.1:${impostor.port}`;
    const found = world.status?.upstreams?.map((one) => [one.address, one.state, one.id]);
    assert.deepEqual(
      found?.toSorted(),
      [
        [address, 'ok', WEB],
        [wrong, 'ERR_PROBE_UPSTREAM_ID', IMPOSTOR],
      ].toSorted(),
    );
    const { status, message = '' } = world.condition('UpstreamVerified') ?? {};
    assert.equal(status, 'False');
    assert.match(message, new RegExp(`${wrong} presents ${IMPOSTOR}, not ${WEB}`));
  });

  it('that cannot be checked are Unknown, each with its reason', async () => {
    await using it = await start();
    const { world, upstream } = it;
    world.run(it.spec({ identities: [] }));
    await world.untilReady();
    await world.until('the first check', verified(world, 'Unknown'), STEP);
    assert.equal(world.condition('UpstreamVerified')?.reason, 'UpstreamUnnamed');
    assert.match(world.condition('UpstreamVerified')?.message ?? '', new RegExp(`presents ${WEB}; nothing says`));
    await upstream.stop();
    const unreachable = () => world.condition('UpstreamVerified')?.reason === 'ProbeUnreachable';
    await world.until('the refused connection', unreachable, STEP);
    assert.equal(world.condition('UpstreamVerified')?.status, 'Unknown');
    assert.equal(world.condition('Degraded')?.status, 'False');
  });

  it('are not checked when the field is off', async () => {
    await using it = await start();
    const { world, upstream } = it;
    let dialled = 0;
    const silent = createServer((socket) => {
      dialled += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    map(world, 'silent', `127.0.0.1:${(silent.address() as AddressInfo).port}`);
    world.run(it.spec({ enabled: false }));
    await world.untilReady();
    const later = world.clock.now() + 5 * INTERVAL;
    await world.until('five intervals', () => world.clock.now() > later, 1_000);
    assert.equal(world.condition('UpstreamVerified'), undefined);
    assert.equal(world.status?.upstreams, undefined);
    assert.deepEqual([dialled, handshakes(upstream)], [0, 0]);
    silent.close();
  });

  it('that hang or send anything but TLS delay no rotation, and the others are checked', async () => {
    await using it = await start();
    const { world, address } = it;
    const sockets = new Set<{ destroy(): void }>();
    const hang = createServer((socket) => void sockets.add(socket.on('error', () => {})));
    const babble = createServer((socket) => {
      sockets.add(socket.on('error', () => {}));
      const more = () => {
        while (socket.writable && socket.write(Buffer.alloc(65_536, 'x')));
      };
      socket.on('drain', more);
      more();
    });
    for (const [name, server] of Object.entries({ hang, babble })) {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      map(world, name, `127.0.0.1:${(server.address() as AddressInfo).port}`);
    }
    world.run(it.spec());
    await world.untilReady();
    const first = await world.leaf();
    await world.until('all three checks', () => world.status?.upstreams?.length === 3, STEP);
    assert.equal(world.condition('UpstreamVerified')?.status, 'Unknown');
    const states = world.status?.upstreams?.map((one) => [one.address === address, one.state]).toSorted();
    assert.deepEqual(states?.at(-1), [true, 'ok']);
    assert.ok(
      states?.slice(0, 2).every(([, state]) => /^ERR_PROBE_(TIMEOUT|UNREACHABLE)$/.test(String(state))),
      `${states}`,
    );
    world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
    await world.until('the rotation', async () => (await world.leaf()) !== first);
    await world.untilReady();
    for (const socket of sockets) socket.destroy();
    hang.close();
    babble.close();
  });

  it('are checked by the leader alone; a follower repeats what the leader wrote', async () => {
    await using it = await start();
    const { world, address } = it;
    world.putCertificate(it.spec());
    world.follow();
    await world.untilReady();
    await world.until('the first check', verified(world, 'True'), STEP);
    await using second = AgentWorld.beside(world, { ...alone, leads: () => false });
    second.follow();
    await second.until('the report', verified(second, 'True'), STEP);
    assert.deepEqual(second.status?.upstreams, [{ address, state: 'ok', id: WEB }]);
    it.become(IMPOSTOR);
    await second.until('the report of the leader', verified(second, 'False'), STEP);
  });

  it('that are no longer used are not reported', async () => {
    await using it = await start();
    const { world } = it;
    world.run(it.spec());
    await world.untilReady();
    await world.until('the first check', verified(world, 'True'), STEP);
    const mapping = { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', namespace: NAMESPACE, name: 'web' };
    await world.kube.delete(mapping, {});
    await world.until('its end', () => world.condition('UpstreamVerified') === undefined, STEP);
    assert.equal(world.status?.upstreams, undefined);
  });
});
