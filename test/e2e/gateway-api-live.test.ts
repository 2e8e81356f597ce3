import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { LiveSink } from '../../src/agent/live.ts';
import type { LoadingEndpoint } from '../../src/gateway/gateway.ts';
import { gatewayApi } from '../../src/gateway/gateway-api/gateway.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { fields } from '../../src/objects/objects.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { type AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { httpRoute, service } from '../support/gateway-api.ts';
import { all, STANDARD, spec, start } from '../support/gateway-api-world.ts';

const EG = 'gateway.envoyproxy.io/gatewayclass-controller';
const condition = (type: string, status: string, reason: string, observedGeneration = 1) => ({
  ...{ type, status, reason, observedGeneration, message: 'm', lastTransitionTime: '2026-01-01T00:00:00Z' },
});
const ancestor = (controllerName: string, name: string, conditions: readonly object[]) => ({
  ancestorRef: { group: 'gateway.networking.k8s.io', kind: 'Gateway', name, namespace: NAMESPACE },
  ...{ controllerName, conditions },
});
const good = [condition('Accepted', 'True', 'Accepted'), condition('ResolvedRefs', 'True', 'ResolvedRefs')];

/** What controllers write into the status of the policy of a port. */
async function report({ kube }: AgentWorld, port: string, ...ancestors: readonly object[]): Promise<void> {
  const metadata = { name: `istio-web-${port}`, namespace: 'shop' };
  const status = { apiVersion: STANDARD, kind: 'BackendTLSPolicy', metadata, status: { ancestors } };
  await kube.apply(status, { fieldManager: 'eg', subresource: 'status', force: true });
}

/** Runs an agent that knows by the statuses, and from these proxies, whether the Gateways use what is published. */
function runLive(world: AgentWorld, endpoints: readonly LoadingEndpoint[] = []) {
  const { kube, clock, gateways } = world;
  const stop = new AbortController();
  const metrics = createMetrics({ version: 'test' });
  const means = { kube, clock, gateways, random: () => 0.5, log: silentLog, metrics };
  world.run(spec, [new LiveSink({ endpoints, ...means, signal: stop.signal })]);
  return { [Symbol.dispose]: () => stop.abort(new Error('test over')) };
}

describe('a MeshCertificate for Gateway API', () => {
  it('is live by the secrets that a proxy has loaded, and writes a bundle with other bytes that it has not', async () => {
    await using it = await start();
    const { world } = it;
    const loaded: Record<string, string> = {};
    const dump = () => ({
      configs: Object.entries(loaded).map(([name, pem]) => {
        const inline = { inline_bytes: Buffer.from(pem).toString('base64') };
        const is = name.endsWith('-ca') ? 'trusted_ca' : 'certificate_chain';
        const key = is === 'trusted_ca' ? 'validation_context' : 'tls_certificate';
        return { name, secret: { name, [key]: { [is]: inline } } };
      }),
    });
    const server = createServer((request, response) =>
      response.end(JSON.stringify(request.url?.startsWith('/config_dump') ? dump() : {})),
    );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const requests = gatewayApi.loading?.answers?.requests(
      `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    );
    assert.ok(requests);
    using _live = runLive(world, [{ kind: gatewayApi.kind, requests }]);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    const pem = async () => String(fields((await it.configMap())?.data)['ca.crt']);
    const secret = await world.secret('istio-identity');
    const chain = Buffer.from(String(fields(secret?.data)['tls.crt']), 'base64').toString();
    const first = await pem();

    // It has the pair, and a bundle of before.
    Object.assign(loaded, {
      'emissary/istio-identity': chain,
      'istio-web-https/shop-ca': 'before',
      'other/shop-ca': 'x',
    });
    await world.until('it is said', () => world.condition('Live')?.reason === 'ProxyOutdated', 1_000);
    assert.match(world.condition('Live')?.message ?? '', /has not loaded the current istio-web-https\/shop-ca/);
    await world.until('other bytes', async () => (await pem()) === `${first}\n`, 1_000);
    await world.until('others again', async () => (await pem()) === `${first}\n\n`, 5_000);

    loaded['istio-web-https/shop-ca'] = await pem();
    // The status of the policy is still missing: the worse of both counts.
    await world.until('of the status', () => world.condition('Live')?.reason === 'StatusAbsent', 1_000);
    await report(world, 'https', ancestor(EG, 'edge', good));
    await world.until('it is live', () => world.condition('Live')?.reason === 'ProxyLoaded', 1_000);
    assert.equal(world.condition('Live')?.message, 'Envoy has loaded the pair and 1 trust bundle(s).');
    // A proxy that nothing of this leads to says nothing about it.
    for (const name of Object.keys(loaded)) delete loaded[name];
    await world.until('of the status alone', () => world.condition('Live')?.reason === 'StatusAccepted', 5_000);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  it('is accepted, and not live, by the status of its own Gateways only', async () => {
    await using it = await start();
    const { world } = it;
    using _live = runLive(world);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('no status', () => world.condition('Live')?.reason === 'StatusAbsent', 1_000);
    await report(world, 'https', ancestor('istio.io/mesh-controller', 'edge', good), ancestor(EG, 'other', good));
    await report(
      world,
      'https',
      ancestor(EG, 'edge', [condition('Accepted', 'False', 'Conflicted'), ...good.slice(1)]),
    );
    await world.until('it is refused', () => world.condition('Live')?.reason === 'StatusRefused', 1_000);
    assert.match(world.condition('Live')?.message ?? '', /Accepted is False, Conflicted/);
    await report(
      world,
      'https',
      ancestor(
        EG,
        'edge',
        good.map((one) => ({ ...one, observedGeneration: 0 })),
      ),
    );
    await world.until('it is old', () => world.condition('Live')?.reason === 'StatusOutdated', 1_000);
    await report(world, 'https', ancestor('istio.io/mesh-controller', 'edge', good), ancestor(EG, 'other', good));
    await world.until('of others', () => world.condition('Live')?.reason === 'StatusAbsent', 1_000);
    await report(world, 'https', ancestor(EG, 'edge', good));
    await world.until('it is accepted', () => world.condition('Live')?.reason === 'StatusAccepted', 1_000);
    assert.equal(world.condition('Live')?.status, 'Unknown');
    assert.match(world.condition('Live')?.message ?? '', /does not show whether the proxies use the certificate/);
  });

  it('is not live while a route is not allowed to use what the policy is for, and the message says so', async () => {
    await using it = await start();
    const { world } = it;
    using _live = runLive(world);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('no status', () => world.condition('Live')?.reason === 'StatusAbsent', 1_000);
    const resolved = (status: string, reason: string) => ({
      parentRef: { name: 'edge', namespace: NAMESPACE },
      ...{ controllerName: EG, conditions: [condition('ResolvedRefs', status, reason)] },
    });
    const route = { apiVersion: STANDARD, kind: 'HTTPRoute', metadata: { name: 'web', namespace: 'shop' } };
    const say = (...parents: readonly object[]) =>
      world.kube.apply({ ...route, status: { parents } }, { fieldManager: 'eg', subresource: 'status', force: true });
    await say(resolved('False', 'RefNotPermitted'));
    await world.until('it is refused', () => world.condition('Live')?.reason === 'StatusRefused', 1_000);
    assert.match(
      world.condition('Live')?.message ?? '',
      /HTTPRoute shop\/web: ResolvedRefs is False, RefNotPermitted: m/,
    );
    await say(resolved('True', 'ResolvedRefs'));
    await world.until('no status', () => world.condition('Live')?.reason === 'StatusAbsent', 1_000);
    await report(world, 'https', ancestor(EG, 'edge', good));
    await world.until('it is accepted', () => world.condition('Live')?.reason === 'StatusAccepted', 1_000);
    assert.equal(world.condition('Live')?.status, 'Unknown');
  });

  it('is live while a port has no route, and its policy no status', async () => {
    const ports = ['https', 'metrics'].map((name, at) => ({ name, port: 443 + at, targetPort: 8443 + at }));
    await using it = await start([...all.filter(({ kind }) => kind !== 'Service'), service({ ports })]);
    const { world } = it;
    using _live = runLive(world);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('no status', () => world.condition('Live')?.reason === 'StatusAbsent', 1_000);
    await report(world, 'https', ancestor(EG, 'edge', good));
    await world.until('it is accepted', () => world.condition('Live')?.reason === 'StatusAccepted', 1_000);
    assert.equal(world.condition('Live')?.status, 'Unknown');
    assert.match(world.condition('Live')?.message ?? '', /have accepted 1 BackendTLSPolicy/);
    // Its only route leads to the other port now.
    await world.kube.apply(httpRoute('web', 444), { fieldManager: 'user', force: true });
    await world.until('no status', () => world.condition('Live')?.reason === 'StatusAbsent', 100_000);
  });
});
