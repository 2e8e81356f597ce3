import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { type RunningGateway, startGateway } from '../../sandbox/emissary/gateway.ts';
import { LiveSink } from '../../src/agent/live.ts';
import { diagnosticsRequests } from '../../src/gateway/emissary/loading.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { gateways } from '../../src/gateways.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { fields } from '../../src/objects/objects.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { say } from '../support/io.ts';
import { toyDefinitions, toyGateway } from '../support/toy-gateway.ts';

const mapping = (name: string, tls?: string) => ({
  apiVersion: 'getambassador.io/v3alpha1',
  kind: 'Mapping',
  metadata: { name, namespace: NAMESPACE },
  spec: { hostname: '*', prefix: `/${name}/`, service: `https://${name}.shop:443`, ...(tls ? { tls } : {}) },
});

interface World extends AsyncDisposable {
  readonly world: AgentWorld;
  readonly gateway: RunningGateway;
  readonly metrics: ReturnType<typeof createMetrics>;
}

/** An agent that asks a gateway what it uses: its diagnostics, Envoy, both, or an address without a listener. */
async function watched(
  ask: (gateway: RunningGateway) => readonly string[],
  spec: Record<string, unknown> = {},
  hidesCertificates = false,
): Promise<World> {
  const world = await AgentWorld.start({ objects: [] });
  for (const one of [mapping('web', 'istio'), mapping('other')]) world.api.put(one);
  const env = { namespace: NAMESPACE };
  const { kube, clock } = world;
  const gateway = await startGateway({ kube, clock, random: () => 0.5, env, hidesCertificates });
  const metrics = createMetrics({ version: 'test' });
  const stop = new AbortController();
  const endpoints = ask(gateway).map((url) => ({ kind: 'emissary', requests: diagnosticsRequests(url) }));
  const means = { kube: world.kube, clock: world.clock, log: silentLog, metrics, signal: stop.signal };
  world.run(spec, [new LiveSink({ endpoints, gateways, random: () => 0.5, ...means })]);
  return {
    world,
    gateway,
    metrics,
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('test over'));
      await gateway.stop();
      await world[Symbol.asyncDispose]();
    },
  };
}

/** A toy gateway that answers requests, and refuses what another kind answers. */
const answeringToy: Gateway = {
  ...(toyGateway as Gateway),
  loading: {
    expected: () => ({ digest: 'one' }),
    answers: {
      requests: (url) => [{ url: new URL(url) }],
      judge([answer]) {
        const { toy } = fields(answer);
        if (toy === undefined) throw new TypeError('not an answer of the toy');
        return { arrival: toy === 'loaded' ? 'live' : 'stale', certain: false };
      },
    },
    condition: (found) =>
      'arrival' in found && found.arrival === 'live'
        ? { status: 'True', reason: 'ToyLoaded', message: 'It has it.' }
        : { status: 'False', reason: 'ToyLate', message: 'failure' in found ? found.failure : found.arrival },
    reasons: ['ToyLoaded', 'ToyLate'],
  },
};

async function answering(answer: object) {
  const state = { answer };
  const server = createServer((_, response) => response.end(JSON.stringify(state.answer)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return Object.assign(state, {
    url: new URL(`http://127.0.0.1:${port}/`),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

/** A Secret and a Mapping change in one batch; the clusters of other Mappings keep the old certificate. */
async function mixBatch({ world, gateway }: World, reason: string): Promise<void> {
  await world.until('Live', () => world.condition('Live')?.reason === reason);
  const first = await world.leaf();
  world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
  await world.until('the new leaf', async () => (await world.leaf()) !== first, 1);
  const other = { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', namespace: NAMESPACE, name: 'other' };
  const incremental = gateway.counts.incremental;
  await world.kube.merge(other, { metadata: { labels: { touched: 'yes' } } }, { fieldManager: 'somebody' });
  await world.until('a mixed batch', () => gateway.counts.incremental > incremental);
  await world.until('a nudge', async () => {
    return (await world.context())?.metadata.annotations?.['meshcert.dev/nudge'] !== undefined;
  });
  const complete = gateway.counts.complete;
  await world.until('the new certificate in Envoy', () => {
    return gateway.counts.complete > complete && world.condition('Live')?.reason === reason;
  });
  world.api.requests.reset();
  await world.clock.advance(600_000);
  const agent = world.api.requests.entries.filter(({ verb }) => ['patch', 'update', 'create'].includes(verb));
  assert.deepEqual(agent, [], 'the nudge is not taken for a foreign change');
}

const diagnostics = ({ diagnosticsUrl: url }: RunningGateway) => [url];
const admin = ({ adminUrl }: RunningGateway) => [`${adminUrl}/certs`];
const both = (gateway: RunningGateway) => [...diagnostics(gateway), ...admin(gateway)];

describe('the condition Live', () => {
  it('is True by what Envoy uses, with the diagnostics alone as with its admin interface', async () => {
    for (const ask of [diagnostics, admin, both]) {
      await using it = await watched(ask);
      await it.world.until('InUse', () => it.world.condition('Live')?.reason === 'InUse');
      assert.equal(it.world.condition('Live')?.status, 'True');
      assert.match(it.metrics.expose(), /meshcert_certificate_live\{namespace="emissary",name="istio"\} 1/);
    }
  });

  it('is not True while Emissary has read a pair that Envoy does not use', async () => {
    await using it = await watched(diagnostics);
    const { world, gateway } = it;
    await world.until('Live', () => world.condition('Live')?.reason === 'InUse');
    gateway.throttle(true);
    const first = await world.leaf();
    world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
    await world.until('the new leaf', async () => (await world.leaf()) !== first);
    await world.until('the old one is seen', () => world.condition('Live')?.reason === 'OldCertificate');
    assert.equal(world.condition('Live')?.status, 'False');
    assert.match(world.condition('Live')?.message ?? '', /cluster web_shop_443, with a certificate until/);
    gateway.throttle(false);
    await world.until('Live again', () => world.condition('Live')?.reason === 'InUse');
  });

  it('is Unknown, and has the gateway nudged once, where nothing shows what Envoy uses', async () => {
    await using it = await watched(diagnostics, {}, true);
    const { world } = it;
    const nudge = async () => (await world.context())?.metadata.annotations?.['meshcert.dev/nudge'];
    const seen = new Set<string | undefined>();
    for (let publications = 0; publications < 2; publications++) {
      const before = { leaf: await world.leaf(), nudge: await nudge() };
      if (publications > 0) world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
      await world.until('a leaf', async () => (await world.leaf()) !== before.leaf);
      await world.until('a nudge', async () => {
        seen.add(world.condition('Live')?.status);
        return (await nudge()) !== before.nudge;
      });
      const { metadata } = (await world.context()) ?? {};
      await world.clock.advance(600_000);
      assert.equal((await world.context())?.metadata.resourceVersion, metadata?.resourceVersion, 'a second nudge');
    }
    assert.equal(world.condition('Live')?.reason, 'GatewayHasRead');
    assert.match(
      world.condition('Live')?.message ?? '',
      /not known whether Envoy uses it: its \/metrics does not show/,
    );
    assert.ok(!seen.has('True'), [...seen].join());
    assert.doesNotMatch(it.metrics.expose(), /meshcert_certificate_live\{/);
  });

  it('stays True through a rotation that arrives, and measures how long it took', async () => {
    await using it = await watched(both);
    const { world, metrics } = it;
    await world.until('Live', () => world.condition('Live')?.status === 'True');
    const first = await world.leaf();
    world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
    await world.until('the new leaf', async () => (await world.leaf()) !== first);
    const seen: (string | undefined)[] = [];
    await world.until('a second measure', () => {
      seen.push(world.condition('Live')?.status);
      return /meshcert_live_lag_seconds_count\{mesh="istio"\} 2/.test(metrics.expose());
    });
    assert.deepEqual(new Set(seen), new Set(['True']));
  });

  it('finds the old certificate after a Secret and a Mapping changed at once, and nudges until it is gone', async () => {
    // The last is what the chart can reach of an Emissary before 4.1.
    for (const [ask, hidesCertificates, reason] of [
      [both, false, 'InUse'],
      [diagnostics, false, 'InUse'],
      [diagnostics, true, 'GatewayHasRead'],
    ] as const) {
      await using it = await watched(ask, {}, hidesCertificates);
      await mixBatch(it, reason);
    }
  });

  it('reports that the gateway does not know the context', async () => {
    await using it = await watched(diagnostics, { tlsContext: { ambassadorIds: ['another'] } });
    const { world } = it;
    await world.until('an unknown context', () => world.condition('Live')?.reason === 'ContextUnknown');
    assert.match(world.condition('Live')?.message ?? '', /compare ambassador_id and AMBASSADOR_LABEL_SELECTOR/);
    assert.match(it.metrics.expose(), /meshcert_certificate_live\{namespace="emissary",name="istio"\} 0/);
  });

  it('reports it too while certificates rotate faster than a gateway may take', async () => {
    await using it = await watched(diagnostics, { tlsContext: { ambassadorIds: ['another'] } });
    const { world } = it;
    await world.untilReady();
    for (let rotations = 0; rotations < 10; rotations++) {
      const before = await world.leaf();
      world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
      await world.until('the new leaf', async () => (await world.leaf()) !== before);
      await world.clock.advance(6_000);
    }
    assert.equal(world.condition('Live')?.reason, 'ContextUnknown');
  });

  it('is Unknown while nothing answers, which raises no alarm', async () => {
    await using it = await watched(() => ['http://127.0.0.1:1/certs']);
    const { world } = it;
    await world.until('silence', () => world.condition('Live')?.reason === 'GatewaySilent');
    assert.equal(world.condition('Live')?.status, 'Unknown');
    assert.equal(world.condition('Ready')?.status, 'True');
    assert.doesNotMatch(it.metrics.expose(), /meshcert_certificate_live\{/);
  });

  it('is not tried with an invalid URL', async () => {
    const { code, stderr } = await say(['agent', '--gateway-diagnostics', 'emissary:8877']);
    assert.equal(code, 2);
    assert.match(stderr, /--gateway-diagnostics "emissary:8877": expected http:\/\/host:port/);
  });

  it('is not tried with a URL for a gateway that does not answer requests', async () => {
    const { code, stderr } = await say(['agent', '--gateway-diagnostics', 'emisary=http://127.0.0.1:8877']);
    assert.equal(code, 2);
    assert.match(stderr, /emisary is no gateway that can be asked; expected emissary/);
  });

  it('shows each gateway only the answers of its own kind', async () => {
    await using world = await AgentWorld.start({ objects: toyDefinitions() });
    world.gateways = [...gateways, answeringToy];
    world.api.put(mapping('web', 'istio'));
    const env = { namespace: NAMESPACE };
    const { kube, clock } = world;
    const gateway = await startGateway({ kube, clock, random: () => 0.5, env });
    await using other = await answering({ toy: 'loaded' });
    const stop = new AbortController();
    await using _ = {
      async [Symbol.asyncDispose]() {
        stop.abort(new Error('test over'));
        await gateway.stop();
      },
    };
    const metrics = createMetrics({ version: 'test' });
    const endpoints = [
      { kind: 'emissary', requests: diagnosticsRequests(gateway.diagnosticsUrl) },
      { kind: 'toy', requests: [{ url: other.url }] },
    ];
    const means = { kube, clock, random: () => 0.5, log: silentLog, metrics, signal: stop.signal };
    const sink = new LiveSink({ endpoints, gateways: world.gateways, ...means });
    world.run({ tlsContext: {}, toy: { selector: { mesh: 'istio' } } }, [sink]);
    await world.until('both use it', () => world.condition('Live')?.reason === 'InUse');
    other.answer = { toy: 'old' };
    await world.until('the toy is late', () => world.condition('Live')?.reason === 'ToyLate');
  });

  it('is absent if the gateway is not asked', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    assert.equal(world.condition('Live'), undefined);
  });
});
