import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import type { ObjectRef } from '../../src/objects/objects.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';

const SELECTED = { selector: { matchLabels: { mesh: 'istio' } } };
const refOf = (apiVersion: string, kind: string, name: string): ObjectRef => {
  return { apiVersion, kind, namespace: NAMESPACE, name };
};
const MESH_CERTIFICATE = refOf('meshcert.dev/v1alpha1', 'MeshCertificate', 'istio');
const mappingRef = (name: string) => refOf('getambassador.io/v3alpha1', 'Mapping', name);

describe('a MeshCertificate with deletionPolicy Delete', () => {
  it('stays and reports what it waits for while a Mapping uses it, takes no other Mapping, and is then deleted', async () => {
    await using world = await AgentWorld.start();
    await startReady(world, { mappings: SELECTED });
    putMapping(world, 'web');
    await world.until('tls on the Mapping', async () => (await tlsOf(world, 'web')) === 'istio');

    await world.kube.delete(MESH_CERTIFICATE, {});
    await world.until('the reason', async () => (await degraded(world)).includes('ERR_RETIRE_WAITS'));
    assert.match(await degraded(world), /Mapping emissary\/web.*meshcert offboard istio -n emissary/);
    assert.equal(await stands(world), true);

    putMapping(world, 'late');
    await world.until('the late Mapping is seen', async () => {
      return (await status(world))?.mappings.length === 2;
    });
    await world.until('a while', afterMs(world, 10_000), 1_000);
    assert.equal(await tlsOf(world, 'late'), undefined);

    await world.kube.merge(mappingRef('web'), { spec: { tls: null } }, { fieldManager: 'user' });
    await world.until('the end', async () => (await world.kube.get(MESH_CERTIFICATE)) === undefined);
    assert.equal(await stands(world), false);
    assert.equal(await tlsOf(world, 'web'), undefined);
  });

  it("waits for somebody else's TLSContext that names its Secret", async () => {
    await using world = await AgentWorld.start();
    await startReady(world);
    const foreign = refOf('getambassador.io/v3alpha1', 'TLSContext', 'handmade');
    world.api.put({ ...asObject(foreign), spec: { hosts: [], secret: 'istio-identity' } });
    await world.kube.delete(MESH_CERTIFICATE, {});
    await world.until('the reason', async () => (await degraded(world)).includes('TLSContext emissary/handmade'));
    assert.equal(await stands(world), true);
    await world.kube.delete(foreign, {});
    await world.until('the end', async () => (await world.kube.get(MESH_CERTIFICATE)) === undefined);
  });

  it('waits until it may list the Mappings, and says so', async () => {
    await using world = await AgentWorld.start();
    await startReady(world);
    await world.stop();
    world.api.fault({ match: ({ plural }) => plural === 'mappings', status: 403 });
    await world.kube.delete(MESH_CERTIFICATE, {});
    world.follow();
    await world.until('the reason', async () => (await degraded(world)).includes('can list all Mappings'));
    assert.equal(await stands(world), true);
    world.api.clearFaults();
    await world.until('the end', async () => (await world.kube.get(MESH_CERTIFICATE)) === undefined);
  });

  it('is deleted where the kinds of its gateway are not served', async () => {
    await using world = await AgentWorld.start({ ambassador: false });
    await startReady(world, { tlsContext: { enabled: false } });
    await world.kube.delete(MESH_CERTIFICATE, {});
    await world.until('the end', async () => (await world.kube.get(MESH_CERTIFICATE)) === undefined);
    assert.equal(await world.secret('istio-identity'), undefined);
  });

  it('is deleted after the definitions of its gateway, whether or not the agent saw the last Mapping go', async () => {
    for (const seen of [true, false]) {
      await using world = await AgentWorld.start();
      await startReady(world, { mappings: SELECTED });
      putMapping(world, 'web');
      await world.until('tls on the Mapping', async () => (await tlsOf(world, 'web')) === 'istio');
      world.api.muteWatches(!seen);
      for (const { metadata } of ambassadorDefinitions()) {
        const kind = 'CustomResourceDefinition';
        await world.kube.delete({ apiVersion: 'apiextensions.k8s.io/v1', kind, name: metadata.name }, {});
      }
      world.api.muteWatches(false);
      world.api.dropWatches('cut');
      await world.kube.delete(MESH_CERTIFICATE, {});
      await world.until('the end', async () => (await world.kube.get(MESH_CERTIFICATE)) === undefined);
      assert.equal(await world.secret('istio-identity'), undefined);
    }
  });

  it('reports that it is paused, and is deleted when it no longer is', async () => {
    await using world = await AgentWorld.start();
    await startReady(world);
    await world.kube.merge(MESH_CERTIFICATE, { spec: { paused: true } }, { fieldManager: 'user' });
    await world.kube.delete(MESH_CERTIFICATE, {});
    await world.until('the reason', async () => (await degraded(world)).includes('set spec.paused to false'));
    assert.equal(await stands(world), true);
    await world.kube.merge(MESH_CERTIFICATE, { spec: { paused: false } }, { fieldManager: 'user' });
    await world.until('the end', async () => (await world.kube.get(MESH_CERTIFICATE)) === undefined);
  });

  it("creates nothing while somebody else's finalizer keeps it, even after a restart", async () => {
    await using world = await AgentWorld.start();
    await startReady(world, {}, { finalizers: ['example.com/other'] });
    await world.kube.delete(MESH_CERTIFICATE, {});
    await world.until('all gone', async () => !(await stands(world)));
    await world.until('a while', afterMs(world, 30_000), 1_000);
    assert.equal(await stands(world), false);
    await world.stop();
    world.follow();
    await world.until('a while', afterMs(world, 30_000), 1_000);
    assert.equal(await stands(world), false);
  });

  it('loses nothing to a dry run', async () => {
    await using world = await AgentWorld.start();
    await startReady(world);
    await world.stop();
    await world.kube.delete(MESH_CERTIFICATE, {});
    world.api.requests.reset();
    world.follow(true);
    await world.until('a while', afterMs(world, 30_000), 1_000);
    assert.deepEqual(
      world.api.requests.entries.filter(({ verb }) => verb === 'delete'),
      [],
    );
    assert.equal(await stands(world), true);
  });
});

describe('a dry run', () => {
  it('repeats no write while nothing changes', async () => {
    await using world = await AgentWorld.start();
    world.putCertificate();
    world.follow(true);
    const tried = () => world.api.requests.entries.filter(({ verb, dryRun }) => verb === 'create' && dryRun).length;
    await world.until('the first minute', afterMs(world, 60_000));
    const before = tried();
    assert.ok(before > 0);
    await world.until('another', afterMs(world, 60_000));
    assert.equal(tried(), before);
  });
});

describe('a TLSContext that is no longer desired', () => {
  it('stays while a Mapping names it', async () => {
    await using world = await AgentWorld.start();
    world.putCertificate();
    putMapping(world, 'web', 'istio');
    world.follow();
    await world.untilReady();
    await world.kube.merge(MESH_CERTIFICATE, { spec: { tlsContext: { enabled: false } } }, { fieldManager: 'user' });
    await world.until('a while', afterMs(world, 30_000), 1_000);
    assert.notEqual(await world.context(), undefined);
    await world.kube.merge(mappingRef('web'), { spec: { tls: null } }, { fieldManager: 'user' });
    await world.until('its end', async () => (await world.context()) === undefined);
  });
});

describe('an agent that may not read its Secrets', () => {
  it('reports it in the status, with the missing rule', async () => {
    await using world = await AgentWorld.start();
    world.api.fault({ match: ({ plural }) => plural === 'secrets', status: 403 });
    world.putCertificate();
    world.follow();
    await world.until('the reason', async () => (await degraded(world)).includes('ERR_KUBE_FORBIDDEN'));
    assert.match(await degraded(world), /resources: \[secrets\].*namespace emissary/);
    const ready = (await status(world))?.conditions.find(({ type }) => type === 'Ready');
    assert.deepEqual([ready?.status, ready?.reason], ['Unknown', 'NotSeen']);
    world.api.clearFaults();
    await world.untilReady();
    await world.until('the word', async () => (await degraded(world)) === 'No problems.');
  });
});

async function startReady(
  world: AgentWorld,
  spec: Record<string, unknown> = {},
  metadata: Record<string, unknown> = {},
): Promise<void> {
  world.putCertificate({ deletionPolicy: 'Delete', ...spec }, metadata);
  world.follow();
  await world.untilReady();
  const finalizers = async () => (await world.kube.get(MESH_CERTIFICATE))?.metadata.finalizers ?? [];
  await world.until('the finalizer', async () => (await finalizers()).includes('meshcert.dev/retire'));
}

interface Status {
  readonly mappings: readonly unknown[];
  readonly conditions: readonly { type: string; status: string; reason: string; message: string }[];
}

async function status(world: AgentWorld): Promise<Status | undefined> {
  return (await world.kube.get(MESH_CERTIFICATE))?.status as Status | undefined;
}

async function degraded(world: AgentWorld): Promise<string> {
  return (await status(world))?.conditions.find(({ type }) => type === 'Degraded')?.message ?? '';
}

async function stands(world: AgentWorld): Promise<boolean> {
  const all = await Promise.all([world.secret('istio-ca'), world.secret('istio-identity'), world.context()]);
  return all.some((object) => object !== undefined);
}

function putMapping(world: AgentWorld, name: string, tls?: string): void {
  const { namespace } = mappingRef(name);
  const spec = { hostname: '*', prefix: `/${name}/`, service: `https://${name}.shop:443`, ...(tls ? { tls } : {}) };
  world.api.put({
    ...asObject(mappingRef(name)),
    metadata: { name, namespace, labels: { mesh: 'istio' } },
    spec,
  });
}

async function tlsOf(world: AgentWorld, name: string): Promise<unknown> {
  return ((await world.kube.get(mappingRef(name)))?.spec as { tls?: string } | undefined)?.tls;
}

function asObject({ apiVersion, kind, namespace, name }: ObjectRef) {
  return { apiVersion, kind, metadata: { namespace, name } };
}

function afterMs(world: AgentWorld, ms: number): () => boolean {
  const end = world.clock.monotonic() + ms;
  return () => world.clock.monotonic() >= end;
}
