import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { LiveSink } from '../../src/agent/live.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { diagnosticsRequests } from '../../src/gateway/emissary/loading.ts';
import { gateways } from '../../src/gateways.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { fields, type KubeObject, type ObjectRef } from '../../src/objects/objects.ts';

import { createMetrics } from '../../src/telemetry/metrics.ts';
import { type AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { envoyProxy, httpRoute, SPEC } from '../support/gateway-api.ts';
import { spec as gatewayApi, start } from '../support/gateway-api-world.ts';

const refOf = (apiVersion: string, kind: string, name: string, namespace = NAMESPACE): ObjectRef => ({
  ...{ apiVersion, kind, namespace, name },
});
const MESH_CERTIFICATE = refOf('meshcert.dev/v1alpha1', 'MeshCertificate', 'istio');
const MAPPING = refOf('getambassador.io/v3alpha1', 'Mapping', 'web', 'shop');
const EMISSARY = { tlsContext: {}, mappings: { selector: { matchLabels: { mesh: 'istio' } }, namespaces: ['shop'] } };

const mapping = (): KubeObject => ({
  ...{ apiVersion: MAPPING.apiVersion, kind: MAPPING.kind },
  metadata: {
    ...{ name: 'web', namespace: 'shop', labels: { mesh: 'istio' } },
    annotations: { 'meshcert.dev/allow-from': NAMESPACE },
  },
  spec: { hostname: '*', prefix: '/web/', service: 'https://web.shop:443' },
});

/** Changes the spec as a user does. */
const edit = (world: AgentWorld, spec: object) =>
  world.kube.merge(MESH_CERTIFICATE, { spec }, { fieldManager: 'user' });

const stored = async (world: AgentWorld) =>
  (await world.kube.get(MESH_CERTIFICATE))?.status as PublicationStatus | undefined;

/** What the condition Referenced says of what an earlier spec left. */
const leftOf = (world: AgentWorld): string => {
  const said = world.condition('Referenced');
  return said?.reason === 'Retiring' ? said.message : '';
};

async function waitAWhile(world: AgentWorld): Promise<void> {
  const from = world.clock.now();
  await world.until('a while', () => world.clock.now() - from > 30_000, 1_000);
}

describe('a gateway whose fields are removed from the spec', () => {
  for (const restarts of [false, true]) {
    it(`keeps a TLSContext for a Mapping of another namespace, and then deletes it${restarts ? ', by another agent too' : ''}`, async () => {
      await using it = await start();
      const { world } = it;
      world.api.put(mapping());
      world.putCertificate({ ...EMISSARY, ...gatewayApi });
      world.follow();
      await world.until('tls on the Mapping', async () => {
        return fields((await world.kube.get(MAPPING))?.spec).tls === 'istio';
      });
      await world.until('the policy', async () => (await it.policy()) !== undefined);
      await world.until('it is stored', async () => (await stored(world))?.gateways?.emissary !== undefined);
      if (restarts) await world.stop();
      await edit(world, { tlsContext: null, mappings: null });
      if (restarts) world.follow();

      await world.until('it is said', () => /Mapping shop\/web/.test(leftOf(world)));
      assert.match(world.condition('Referenced')?.message ?? '', /no longer .*Emissary.*spec\.tls of a Mapping/);
      await waitAWhile(world);
      assert.ok(await world.context(), 'the Mapping still uses it');
      await world.kube.merge(MAPPING, { spec: { tls: null } }, { fieldManager: 'user' });
      await world.until('it goes', async () => (await world.context()) === undefined);
      await world.until('it is forgotten', async () => {
        const { gateways } = (await stored(world)) ?? {};
        return gateways?.emissary === undefined && gateways?.gatewayApi !== undefined;
      });
      await world.until('the rest is as it was', () => world.condition('Referenced')?.reason === 'AllServices');
      assert.ok((await it.policy()) && (await world.secret('istio-identity')));
    });
  }

  it('waits until the agent may list the Mappings, and says so', async () => {
    await using it = await start();
    const { world } = it;
    world.putCertificate({ ...EMISSARY, ...gatewayApi });
    world.follow();
    await world.until('the TLSContext', async () => (await world.context()) !== undefined);
    await world.until('it is stored', async () => (await stored(world))?.gateways?.emissary !== undefined);
    await world.stop();
    await edit(world, { tlsContext: null, mappings: null });
    world.api.fault({ match: ({ plural }) => plural === 'mappings', status: 403 });
    world.follow();
    await world.until('it is said', () => /can list all Mappings/.test(leftOf(world)));
    await waitAWhile(world);
    assert.ok(await world.context());
    world.api.clearFaults();
    await world.until('it goes', async () => (await world.context()) === undefined);
  });

  it('keeps a policy that a route uses, with every root, and then deletes it and its ConfigMap', async () => {
    await using it = await start();
    const { world } = it;
    world.putCertificate({ ...EMISSARY, ...gatewayApi });
    world.follow();
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('it is stored', async () => (await stored(world))?.gateways?.gatewayApi !== undefined);
    await world.stop();
    await edit(world, { gatewayApi: null });
    world.follow();

    await world.until('it is said', () => /Service shop\/web/.test(leftOf(world)));
    const { root } = world.mesh.ca;
    await world.kube.delete({ apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'istio-ca' }, {});
    await world.until('the ConfigMap is repaired', async () => {
      return fields((await it.configMap())?.data)['ca.crt'] === root.pem;
    });
    await waitAWhile(world);
    assert.ok(await it.policy(), 'the route still uses it');
    world.api.put({ ...httpRoute(), spec: { rules: [] } });
    await world.until('the policy goes', async () => (await it.policy()) === undefined);
    await world.until('its ConfigMap too', async () => (await it.configMap()) === undefined);

    const waits = () => leftOf(world);
    await world.until(
      'it waits for the proxy',
      () => /EnvoyProxy emissary\/proxy/.test(waits()) && !/Service/.test(waits()),
    );
    assert.ok(fields((await it.proxy())?.spec).backendTLS, 'a field of the user’s object is left');
    world.api.put(envoyProxy());
    await world.until('it is forgotten', async () => (await stored(world))?.gateways?.gatewayApi === undefined);
    assert.ok((await world.context()) && (await world.secret('istio-identity')));
  });

  it('deletes at once what nothing uses, such as the EnvoyProxy by which a Secret is read again', async () => {
    await using it = await start();
    const { world } = it;
    world.api.put({ ...httpRoute(), spec: { rules: [] } });
    world.putCertificate({ ...EMISSARY, gatewayApi: { ...SPEC, clientCertificate: 'Gateway' } });
    world.follow();
    await world.until('the EnvoyProxy', async () => (await it.proxy('istio-reread')) !== undefined);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await edit(world, { gatewayApi: null });
    await world.until('the policy goes', async () => (await it.policy()) === undefined);
    assert.ok(await it.proxy('istio-reread'), 'the Gateway still names the Secret');
    const gateway = await it.gateway();
    assert.ok(gateway);
    world.api.put({ ...gateway, spec: { ...fields(gateway.spec), tls: {} } });
    await world.until('the EnvoyProxy goes', async () => (await it.proxy('istio-reread')) === undefined);
    await world.until('it is forgotten', async () => (await stored(world))?.gateways?.gatewayApi === undefined);
  });

  it('is not looked for when another MeshCertificate of the same name never had them', async () => {
    await using it = await start();
    const { world } = it;
    world.api.put({ ...httpRoute(), spec: { rules: [] } });
    world.putCertificate({ ...EMISSARY, ...gatewayApi });
    world.follow();
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('it is stored', async () => (await stored(world))?.gateways?.gatewayApi !== undefined);
    let refused = 0;
    world.api.fault({
      match: ({ plural, verb }) => plural === 'meshcertificates' && (verb === 'list' || verb === 'watch'),
      met: () => void refused++,
      status: 503,
    });
    world.api.compact(true);
    await world.until('the watch is lost', () => refused > 0);
    await world.kube.delete(MESH_CERTIFICATE, {});
    world.putCertificate(EMISSARY, { uid: 'another' });
    world.api.clearFaults();
    await world.until('it is stored again', async () => (await stored(world))?.gateways?.emissary !== undefined);
    await waitAWhile(world);
    assert.ok(await it.policy());
    assert.equal((await stored(world))?.gateways?.gatewayApi, undefined);
  });

  it('is not asked any more whether it uses the certificate', async () => {
    await using it = await start();
    const { world } = it;
    world.putCertificate({ ...EMISSARY, ...gatewayApi });
    const stop = new AbortController();
    const { kube, clock } = world;
    let asked = 0;
    const server = createServer((_, response) => {
      asked += 1;
      response.writeHead(503).end();
    });
    await using _ = {
      async [Symbol.asyncDispose]() {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      },
    };
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const requests = diagnosticsRequests(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const live = new LiveSink({
      ...{ kube, clock, gateways, log: silentLog, random: () => 0.5, signal: stop.signal },
      ...{ endpoints: [{ kind: 'emissary', requests }], metrics: createMetrics({ version: 'test' }) },
    });
    world.follow(false, [live]);
    await world.until('it is asked', () => asked > 0, 1_000);
    await edit(world, { tlsContext: null, mappings: null });
    await world.until('the TLSContext goes', async () => (await world.context()) === undefined);
    const isSaid = () => world.condition('Live')?.reason;
    await world.until('another gateway is judged', () => /^Status/.test(isSaid() ?? ''), 1_000);
    const before = asked;
    await world.clock.advance(120_000);
    assert.equal(asked, before);
    stop.abort(new Error('test over'));
  });

  it('is waited for by the deletion of the MeshCertificate', async () => {
    await using it = await start();
    const { world } = it;
    world.putCertificate({ ...EMISSARY, ...gatewayApi, deletionPolicy: 'Delete' });
    world.follow();
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('it is stored', async () => (await stored(world))?.gateways?.gatewayApi !== undefined);
    await edit(world, { gatewayApi: null });
    await world.kube.delete(MESH_CERTIFICATE, {});
    await world.until('it waits', () => world.status?.lastError?.code === 'ERR_RETIRE_WAITS');
    assert.match(world.status?.lastError?.message ?? '', /EnvoyProxy emissary\/proxy, Service shop\/web/);
    assert.ok((await it.policy()) && (await world.secret('istio-identity')));
    world.api.put({ ...httpRoute(), spec: { rules: [] } });
    world.api.put(envoyProxy());
    await world.until('all is gone', async () => (await world.kube.get(MESH_CERTIFICATE)) === undefined);
    assert.deepEqual(
      [await it.policy(), await it.configMap(), await world.context(), await world.secret('istio-identity')],
      [undefined, undefined, undefined, undefined],
    );
  });
});
