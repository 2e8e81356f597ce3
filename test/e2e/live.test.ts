import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LiveSink } from '../../src/agent/live/live.ts';
import { say } from '../../src/cli/io.fixture.ts';
import { diagnosticsUrl } from '../../src/gateway/emissary/loading/answer.ts';
import { gateways } from '../../src/gateways.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { type RunningGateway, startGateway } from '../../src/sandbox/gateway/gateway.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';

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
): Promise<World> {
  const world = await AgentWorld.start({ objects: [] });
  for (const one of [mapping('web', 'istio'), mapping('other')]) world.api.put(one);
  const env = { namespace: NAMESPACE };
  const gateway = await startGateway({ kube: world.kube, clock: world.clock, random: () => 0.5, env });
  const metrics = createMetrics({ version: 'test' });
  const stop = new AbortController();
  const urls = ask(gateway).map(diagnosticsUrl);
  const means = { kube: world.kube, clock: world.clock, log: silentLog, metrics, signal: stop.signal };
  world.run(spec, [new LiveSink({ urls, gateways, random: () => 0.5, ...means })]);
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

const diagnostics = ({ diagnosticsUrl: url }: RunningGateway) => [url];
const admin = ({ adminUrl }: RunningGateway) => [`${adminUrl}/certs`];
const both = (gateway: RunningGateway) => [...diagnostics(gateway), ...admin(gateway)];

describe('the condition Live', () => {
  it('reports that the gateway has read the pair, and that Envoy uses it if that can be asked', async () => {
    for (const [ask, reason] of [
      [diagnostics, 'GatewayHasRead'],
      [both, 'InUse'],
    ] as const) {
      await using it = await watched(ask);
      await it.world.until(reason, () => it.world.condition('Live')?.reason === reason);
      assert.equal(it.world.condition('Live')?.status, 'True');
      assert.match(it.metrics.expose(), /meshcert_certificate_live\{namespace="emissary",name="istio"\} 1/);
    }
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
    await using it = await watched(both);
    const { world, gateway } = it;
    await world.until('Live', () => world.condition('Live')?.reason === 'InUse');
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
      return gateway.counts.complete > complete && world.condition('Live')?.reason === 'InUse';
    });
    world.api.requests.reset();
    await world.clock.advance(600_000);
    const agent = world.api.requests.entries.filter(({ verb }) => ['patch', 'update', 'create'].includes(verb));
    assert.deepEqual(agent, [], 'the nudge is not taken for a foreign change');
  });

  it('reports that the gateway does not know the context', async () => {
    await using it = await watched(diagnostics, { tlsContext: { ambassadorIds: ['another'] } });
    const { world } = it;
    await world.until('an unknown context', () => world.condition('Live')?.reason === 'ContextUnknown');
    assert.match(world.condition('Live')?.message ?? '', /compare ambassador_id and AMBASSADOR_LABEL_SELECTOR/);
    assert.match(it.metrics.expose(), /meshcert_certificate_live\{namespace="emissary",name="istio"\} 0/);
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

  it('is absent if the gateway is not asked', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    assert.equal(world.condition('Live'), undefined);
  });
});
