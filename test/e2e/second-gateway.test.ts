import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LiveSink } from '../../src/agent/live.ts';
import { CONSENT_ANNOTATION } from '../../src/core/consent.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { gateways as builtIn } from '../../src/gateways.ts';
import { connect } from '../../src/kube/client.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { fields, type KubeObject } from '../../src/objects/objects.ts';

import { createMetrics } from '../../src/telemetry/metrics.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { TOY, type ToyConfig, toyDefinitions, toyDigest, toyGateway } from '../support/toy-gateway.ts';

const toy = toyGateway as Gateway;
const SPEC = { toy: { selector: { mesh: 'istio' }, namespaces: ['shop'] } satisfies ToyConfig };

const route = (name: string, namespace = 'shop', more: object = {}): KubeObject => ({
  apiVersion: TOY.routes.apiVersion,
  kind: TOY.routes.kind,
  metadata: { name, namespace, labels: { mesh: 'istio' }, annotations: { [CONSENT_ANNOTATION]: NAMESPACE }, ...more },
  spec: { service: name },
});

/** An agent with these gateways, and a client that knows their kinds. */
async function start(gateways: readonly Gateway[]) {
  const world = await AgentWorld.start({ namespaces: [NAMESPACE, 'shop'], objects: toyDefinitions() });
  world.gateways = gateways;
  const kinds = gateways.flatMap(({ resources }) => resources);
  const kube = connect({ kubeconfigText: world.api.kubeconfig(), userAgent: 'test', kinds, clock: world.clock });
  const get = ({ apiVersion, kind }: (typeof TOY)[keyof typeof TOY], name: string, namespace = NAMESPACE) =>
    kube.get({ apiVersion, kind, namespace, name });
  return {
    world,
    kube,
    client: () => get(TOY.clients, 'istio'),
    policy: (service: string, namespace = 'shop') => get(TOY.policies, `istio-${service}`, namespace),
    policyOf: async (name: string) => fields((await get(TOY.routes, name, 'shop'))?.spec).policy,
    writes: () => world.api.requests.entries.filter(({ verb }) => verb === 'create' || verb === 'patch'),
    async [Symbol.asyncDispose]() {
      kube.close();
      await world[Symbol.asyncDispose]();
    },
  };
}

describe('a gateway that is not Emissary', () => {
  it('gets its objects in several namespaces, then its routes, without a gap', async () => {
    await using it = await start([toy]);
    const { world } = it;
    world.api.put(route('web'));
    world.run(SPEC);
    await world.untilReady();
    await world.until('the route', async () => (await it.policyOf('web')) === 'istio-web');
    assert.equal(fields((await it.client())?.spec).secret, 'istio-identity');
    assert.match(String(fields((await it.policy('web'))?.spec).roots), /BEGIN CERTIFICATE/);
    const order = it.writes().map(({ verb, resource }) => `${verb} ${resource}`);
    const first = (what: string) => order.indexOf(what);
    assert.ok(first('create secrets') < first('create toyclients'), order.join());
    assert.ok(first('create toypolicies') < first('patch toyroutes'), order.join());
    const times = it.writes().map(({ at }) => at);
    assert.ok(Math.max(...times) - Math.min(...times) < 2_000, 'nobody asked for a gap');
  });

  it('shows its routes in the status, with its own words', async () => {
    await using it = await start([toy]);
    const { world } = it;
    world.api.put(route('web'));
    world.api.put(route('foreign', 'shop', { annotations: {} }));
    world.run(SPEC);
    await world.untilReady();
    await world.until('both routes', () => world.status?.mappings.length === 2);
    await world.until('the one', () => world.status?.mappings.find(({ name }) => name === 'web')?.state === 'ok');
    assert.deepEqual(
      world.status?.mappings.map(({ kind, name, state, context }) => [kind, name, state, context]).toSorted(),
      [
        ['ToyRoute', 'foreign', 'ERR_TARGET_NO_CONSENT', undefined],
        ['ToyRoute', 'web', 'ok', 'istio-web'],
      ],
    );
    assert.equal(world.condition('Referenced')?.reason, 'ToyRoutesLeft');
  });

  it('keeps the object of a route for as long as the route uses it, and deletes it after that', async () => {
    await using it = await start([toy]);
    const { world } = it;
    world.api.put(route('web'));
    world.run(SPEC);
    await world.until('the route', async () => (await it.policyOf('web')) === 'istio-web');
    const used = await it.kube.get({ ...TOY.routes, namespace: 'shop', name: 'web' });
    assert.ok(used);
    world.api.put({ ...used, metadata: { ...used.metadata, labels: {} } });
    await world.until('it is seen', () => world.status?.mappings[0]?.name === 'web');
    const from = world.clock.now();
    await world.until('a while', () => world.clock.now() - from > 10_000, 1_000);
    assert.ok(await it.policy('web'), 'the route still uses it');
    world.api.put({ ...route('web'), metadata: { ...used.metadata, labels: {} } });
    await world.until('it goes', async () => (await it.policy('web')) === undefined);
    assert.ok(await it.client(), 'the rest stays');
  });

  it('is known to have loaded a pair from the status that it writes itself', async () => {
    await using it = await start([toy]);
    const { world } = it;
    const stop = new AbortController();
    const metrics = createMetrics({ version: 'test' });
    const { kube } = it;
    const means = { kube, clock: world.clock, random: () => 0.5, log: silentLog, metrics, signal: stop.signal };
    world.run(SPEC, [new LiveSink({ endpoints: [], gateways: [toy], ...means })]);
    await world.untilReady();
    await world.until('it is late', () => world.condition('Live')?.reason === 'ToyLate', 1_000);
    const certificate = fields((await world.secret('istio-identity'))?.data)['tls.crt'];
    const { apiVersion, kind } = TOY.clients;
    const status = { loaded: toyDigest(certificate) };
    const loaded = { apiVersion, kind, metadata: { name: 'istio', namespace: NAMESPACE }, status };
    await kube.apply(loaded, { fieldManager: 'toy', subresource: 'status' });
    await world.until('it is live', () => world.condition('Live')?.status === 'True');
    assert.equal(world.condition('Live')?.reason, 'ToyLoaded');
    stop.abort(new Error('test over'));
  });

  it('reports what is missing if the cluster does not serve its kinds', async () => {
    const world = await AgentWorld.start({ namespaces: [NAMESPACE, 'shop'] });
    await using _ = world;
    world.gateways = [toy];
    world.run(SPEC);
    await world.untilCode('ERR_GATEWAY_CRD_MISSING');
    assert.match(world.status?.lastError?.message ?? '', /toy\.test\/v1 ToyClient; install the definitions of the toy/);
  });
});

describe('one MeshCertificate for two gateways', () => {
  const both = [...builtIn, toy];
  const mapping = {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'api', namespace: NAMESPACE, labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: '/api/', service: 'https://api.shop:443' },
  };
  const spec = { ...SPEC, mappings: { selector: { matchLabels: { mesh: 'istio' } } } };
  const tlsOf = async (world: AgentWorld) =>
    fields((await world.kube.get({ ...mapping, namespace: NAMESPACE, name: 'api' }))?.spec).tls;

  it('serves both from one identity and one pair of Secrets, through a rotation', async () => {
    await using it = await start(both);
    const { world } = it;
    world.api.put(mapping);
    world.api.put(route('web'));
    world.run(spec);
    await world.untilReady();
    await world.until('the Mapping', async () => (await tlsOf(world)) === 'istio');
    await world.until('the route', async () => (await it.policyOf('web')) === 'istio-web');
    assert.deepEqual(
      [fields((await world.context())?.spec).secret, fields((await it.client())?.spec).secret],
      ['istio-identity', 'istio-identity'],
    );
    const before = await world.leaf();
    await world.until('another leaf', async () => (await world.leaf()) !== before, 10_000);
    assert.equal(world.mesh.issued, 2, 'one identity a rotation');
    assert.deepEqual(
      it
        .writes()
        .filter(({ verb, resource }) => verb === 'create' && resource === 'secrets')
        .map(({ name }) => name).length,
      2,
    );
  });

  it('is deleted only when neither needs it', async () => {
    await using it = await start(both);
    const { world } = it;
    const certificate = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', namespace: NAMESPACE };
    const ref = { ...certificate, name: 'istio' };
    world.api.put(mapping);
    world.api.put(route('web'));
    world.putCertificate({ ...spec, deletionPolicy: 'Delete' });
    world.follow();
    await world.untilReady();
    await world.until('the Mapping', async () => (await tlsOf(world)) === 'istio');
    await world.until('the route', async () => (await it.policyOf('web')) === 'istio-web');
    await world.kube.delete(ref, {});
    await world.until('it waits', () => world.status?.lastError?.code === 'ERR_RETIRE_WAITS');
    assert.match(world.status?.lastError?.message ?? '', /Mapping emissary\/api, ToyRoute shop\/web/);
    world.api.put({ ...mapping, metadata: { ...mapping.metadata, labels: {} } });
    await world.until(
      'it waits for the other',
      () => !/Mapping emissary/.test(world.status?.lastError?.message ?? 'Mapping emissary'),
    );
    assert.ok(await world.secret('istio-identity'));
    world.api.put(route('web', 'shop', { labels: {} }));
    await world.until('all is gone', async () => (await world.kube.get(ref)) === undefined);
    assert.deepEqual(
      [await world.secret('istio-identity'), await world.context(), await it.client(), await it.policy('web')],
      [undefined, undefined, undefined, undefined],
    );
  });
});
