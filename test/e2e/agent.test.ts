import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { emissary } from '../../src/gateway/emissary/gateway.ts';
import { FIELD_MANAGER } from '../../src/objects/objects.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { AgentWorld } from '../support/agent-world.ts';
import { flaws } from '../support/flaws.ts';
import { TOY_ID } from '../support/toy-mesh.ts';

const HOUR = 3_600_000;
const SECRET = { apiVersion: 'v1', kind: 'Secret', namespace: 'emissary' } as const;

/** A Secret of that name that another client made, which the agent has refused to overwrite. */
async function refusedSecret(world: AgentWorld) {
  const foreign = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'istio-identity', namespace: 'emissary' },
    type: 'Opaque',
    data: { password: 'c2VjcmV0' },
  };
  world.api.put(foreign);
  world.run();
  await world.untilCode('ERR_PLAN_FOREIGN');
  return foreign;
}

describe('the agent', () => {
  it('publishes the CA Secret, the identity Secret and the TLSContext, in this order', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const { bundle, identity } = await world.published();
    assert.deepEqual(
      bundle.map((root) => root.fingerprint),
      [world.mesh.ca.root.fingerprint],
    );
    assert.equal(identity?.chain.length, 1);
    const context = (await world.context())?.spec as Record<string, unknown>;
    assert.deepEqual([context.secret, context.ca_secret, context.hosts], ['istio-identity', 'istio-ca', []]);
    assert.deepEqual(writes(world), [
      'create secrets/',
      'patch secrets/istio-ca',
      'create secrets/',
      'patch secrets/istio-identity',
      'create tlscontexts/',
    ]);
  });

  it('owns its Secrets by apply, at once or after a while', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    assert.deepEqual(await operations(world), [['Apply'], ['Apply']]);
    await world.stop();
    for (const name of ['istio-ca', 'istio-identity']) await world.kube.delete({ ...SECRET, name }, {});
    world.api.fault({ match: ({ verb, plural }) => verb === 'patch' && plural === 'secrets', status: 500 });
    world.run();
    await world.untilCode('ERR_KUBE_SERVER');
    assert.deepEqual(await operations(world), [['Update'], []], 'what relies on a Secret waits until that is complete');
    world.api.clearFaults();
    await world.untilReady();
    assert.equal(world.condition('Degraded')?.status, 'False');
    const first = await world.leaf();
    await world.until('the next leaf', () => world.status?.fingerprint !== first, 60_000);
    assert.equal(world.condition('Degraded')?.status, 'False');
  });

  it('keeps Secrets and gateway objects two seconds apart across a restart', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.until('the pair', async () => (await world.secret('istio-identity')) !== undefined, 50);
    const seenAt = world.clock.now();
    await world.stop();
    assert.equal(await world.context(), undefined);
    world.run();
    await world.until('the context', async () => (await world.context()) !== undefined, 50);
    assert.ok(
      world.clock.now() - seenAt >= emissary.batchGapMs - 50,
      `${world.clock.now() - seenAt} ms after the pair`,
    );
  });

  it('rotates with one write, and restarts with none', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const first = await world.leaf();
    world.api.requests.reset();
    await world.until('the second leaf', () => world.status?.fingerprint !== first, 60_000);
    assert.deepEqual(writes(world), ['patch secrets/istio-identity']);
    await world.stop();
    world.api.requests.reset();
    world.run();
    await world.untilReady();
    assert.deepEqual([writes(world), world.mesh.issued], [[], 2]);
  });

  it('keeps the old pair when the CA is down, says so, and recovers by itself', async () => {
    await using world = await AgentWorld.start();
    world.mesh.outage = true;
    world.run();
    await world.untilCode('ERR_MESH_UNREACHABLE');
    assert.equal(world.condition('Ready')?.status, 'False');
    assert.equal(world.condition('Degraded')?.reason, 'MeshUnreachable');
    world.mesh.outage = false;
    await world.untilReady();
    const first = await world.leaf();
    world.mesh.outage = true;
    await world.until('a failure at renewal', () => world.condition('Degraded')?.status === 'True', 60_000);
    assert.equal(world.condition('Ready')?.status, 'True');
    assert.equal(await world.leaf(), first);
    world.mesh.outage = false;
    await world.until('the new leaf', () => world.status?.fingerprint !== first);
    assert.equal(world.condition('Degraded')?.status, 'False');
  });

  it('completes a rotation that an outage of the API server interrupted', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const first = await world.leaf();
    await world.clock.advance(0.59 * HOUR);
    await world.api.outage(true);
    await world.until('an issue', () => world.mesh.issued === 2, 60_000);
    await world.until('a coded failure', () => world.condition('Degraded')?.reason === 'KubeUnreachable');
    await world.clock.advance(60_000);
    await world.api.outage(false);
    await world.until('the new leaf', async () => (await world.leaf()) !== first, 1_000);
    await world.until('recovery', () => world.condition('Degraded')?.status === 'False');
    assert.equal(world.mesh.issued, 2);
  });

  const bad = [
    ['a wrong key', 'ERR_VERIFY_KEY_MISMATCH', () => ({ key: PrivateKey.generate() })],
    ['another identity', 'ERR_VERIFY_ID', (w) => w.mesh.ca.identity({ uris: ['spiffe://toy/ns/a/sa/other'] })],
    [
      'an expired leaf',
      'ERR_VERIFY_EXPIRED',
      (w) => other(w, { notBefore: w.clock.now() - HOUR, notAfter: w.clock.now() - 60_000 }),
    ],
    [
      'a leaf that is not valid yet',
      'ERR_VERIFY_NOT_YET_VALID',
      (w) => other(w, { notBefore: w.clock.now() + HOUR, notAfter: w.clock.now() + 2 * HOUR }),
    ],
    ['an empty chain', 'ERR_VERIFY_EMPTY_CHAIN', () => ({ chain: [] })],
    [
      'a leaf that does not chain to the roots',
      'ERR_VERIFY_CHAIN_INCOMPLETE',
      (w) => {
        const { key, chain } = SandboxCa.root({ clock: w.clock }).identity({
          uris: ['spiffe://toy/ns/emissary/sa/emissary'],
        });
        return { key, chain };
      },
    ],
    ...flaws('toy').map(
      ({ title, code, signer }) =>
        [title, code, (w: AgentWorld) => signer(w.mesh.ca, { clock: w.clock }).identity({ uris: [TOY_ID] })] as const,
    ),
  ] as const satisfies readonly (readonly [string, string, (world: AgentWorld) => object])[];

  for (const [what, code, answer] of bad) {
    it(`keeps the old pair when the CA answers with ${what}, and publishes the next good one`, async () => {
      await using world = await AgentWorld.start();
      world.run();
      await world.untilReady();
      const first = await world.leaf();
      world.api.requests.reset();
      world.mesh.answer = (good) => ({ ...good, ...answer(world) });
      world.agent?.reconcilers.find('emissary', 'istio')?.renew();
      await world.untilCode(code);
      assert.equal(world.condition('Ready')?.status, 'True');
      assert.equal(await world.leaf(), first);
      assert.deepEqual(writes(world), []);
      world.mesh.answer = undefined;
      await world.until('a good leaf', () => world.condition('Degraded')?.status === 'False', 10_000);
      assert.notEqual(await world.leaf(), first);
    });
  }

  it('refuses a Secret of that name that is not ours, and continues once it is gone', async () => {
    await using world = await AgentWorld.start();
    const foreign = await refusedSecret(world);
    assert.match(world.status?.lastError?.message ?? '', /Secret emissary\/istio-identity .*not created by meshcert/);
    assert.deepEqual(Object.keys(world.status?.lastError ?? {}).sort(), ['code', 'firstTime', 'message', 'time']);
    assert.deepEqual((await world.secret('istio-identity'))?.data, foreign.data);
    assert.equal(await world.context(), undefined);
    await world.kube.delete({ ...foreign, ...foreign.metadata }, {});
    await world.untilReady();
  });

  it('takes over an object as soon as it is allowed to, however long it was refused', async () => {
    await using world = await AgentWorld.start();
    const foreign = await refusedSecret(world);
    const refusedAt = world.clock.now();
    await world.until('minutes of refusals', () => world.clock.now() - refusedAt > 300_000, 2000);
    const freeAt = world.clock.now();
    await world.kube.delete({ ...foreign, ...foreign.metadata }, {});
    await world.untilReady();
    assert.ok(world.clock.now() - freeAt < 5000, `taken over after ${world.clock.now() - freeAt} ms`);
  });

  it('waits for the TLSContext definition and says what is missing', async () => {
    await using world = await AgentWorld.start({ ambassador: false });
    world.run();
    await world.untilCode('ERR_GATEWAY_CRD_MISSING');
    assert.ok(await world.leaf());
    for (const definition of ambassadorDefinitions()) world.api.put(definition);
    await world.untilReady();
  });

  it('repairs a foreign edit and a deletion at once', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const good = await world.secret('istio-ca');
    await world.kube.merge(
      { apiVersion: 'v1', kind: 'Secret', namespace: 'emissary', name: 'istio-ca' },
      { data: { 'tls.crt': 'Z2FyYmFnZQ==' } },
      { fieldManager: 'somebody' },
    );
    await world.until(
      'repair',
      async () => JSON.stringify((await world.secret('istio-ca'))?.data) === JSON.stringify(good?.data),
    );
    await world.kube.delete({ apiVersion: 'v1', kind: 'Secret', namespace: 'emissary', name: 'istio-identity' }, {});
    await world.until('the pair again', async () => (await world.leaf()) !== undefined);
    await world.untilReady();
  });

  it('publishes a new root before the leaf that needs it, holds the leaf, and drops the old root last', async () => {
    await using world = await AgentWorld.start();
    world.run({ trust: { hold: '5m', retain: '2h' } });
    await world.untilReady();
    const [first, old] = [await world.leaf(), world.mesh.ca];
    const next = SandboxCa.root({ clock: world.clock });
    world.mesh.rotate(next, [old.root, next.root]);
    await world.until('both roots', async () => (await world.published()).bundle.length === 2);
    assert.equal(await world.leaf(), first);
    await world.until('a held leaf', () => world.status?.held !== undefined);
    assert.equal(world.condition('Trusted')?.reason, 'LeafHeld');
    assert.equal(await world.leaf(), first);
    await world.until('the new leaf', async () => (await world.leaf()) !== first, 5000);
    world.mesh.rotate(next, [next.root]);
    await world.until('retention', () => world.status?.roots.some(({ state }) => state === 'retained') === true);
    assert.equal((await world.published()).bundle.length, 2);
    await world.until('the end of retention', async () => (await world.published()).bundle.length === 1, 60_000);
  });

  it('says which name the gateway would misread, and writes nothing', async () => {
    await using world = await AgentWorld.start();
    world.run({ tlsContext: { name: 'web-context' } });
    await world.untilCode('ERR_GATEWAY_NAME');
    assert.deepEqual(writes(world), []);
  });

  it('holds a leaf under a new root no longer than until the last tenth of the old one', async () => {
    await using world = await AgentWorld.start();
    world.run({ trust: { hold: '24h' } });
    await world.untilReady();
    const first = await world.leaf();
    const next = SandboxCa.root({ clock: world.clock });
    world.mesh.rotate(next, [world.mesh.ca.root, next.root]);
    await world.until('a held leaf', () => world.status?.held !== undefined);
    const emergency = Date.parse(world.status?.emergencyTime ?? '');
    await world.until('the new leaf', async () => (await world.leaf()) !== first, 30_000);
    assert.ok(world.clock.now() >= emergency);
    assert.ok(world.clock.now() < emergency + 120_000);
  });

  it('changes nothing while paused', async () => {
    await using world = await AgentWorld.start();
    world.run({ paused: true });
    await world.until('a status', () => world.status !== undefined);
    await world.clock.advance(HOUR);
    assert.deepEqual([writes(world), world.mesh.issued], [[], 0]);
  });

  it('never logs or reports key material', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    world.mesh.answer = (good) => ({ ...good, key: PrivateKey.generate() });
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.untilCode('ERR_VERIFY_KEY_MISMATCH');
    const output = [...world.lines, JSON.stringify(world.board.all())].join('\n');
    assert.doesNotMatch(output, /PRIVATE KEY|LS0tLS1CRUdJTiBQUklWQVRFI/);
  });
});

function other(world: AgentWorld, dates: { notBefore: number; notAfter: number }) {
  const { key, chain } = world.mesh.ca.identity({ uris: ['spiffe://toy/ns/emissary/sa/emissary'], ...dates });
  return { key, chain };
}

/** How the agent owns each of its Secrets. */
async function operations(world: AgentWorld): Promise<(string | undefined)[][]> {
  const secrets = await Promise.all(['istio-ca', 'istio-identity'].map((name) => world.secret(name)));
  return secrets.map((secret) =>
    (secret?.metadata.managedFields ?? [])
      .filter(({ manager, fieldsV1 }) => manager === FIELD_MANAGER && fieldsV1?.['f:data'] !== undefined)
      .map(({ operation }) => operation),
  );
}

/** The writes of the agent, in order. */
function writes(world: AgentWorld): string[] {
  return world.api.requests.entries
    .filter(({ userAgent, verb }) => userAgent.startsWith('meshcert') && !['get', 'list', 'watch'].includes(verb))
    .map(({ verb, resource, name }) => `${verb} ${resource}/${verb === 'create' ? '' : name}`);
}

describe('a hundred MeshCertificates that begin together', () => {
  it('have one gap between their Secrets and the objects of the gateway, and one status each', async () => {
    await using world = await AgentWorld.start();
    for (let at = 0; at < 100; at += 1) world.putCertificate({}, { name: `gw-${at}` });
    world.follow();
    const { requests } = world.api;
    const statuses = () => requests.count({ resource: 'meshcertificates/status' });
    await world.until('a status each', () => statuses() >= 100);
    const writes = requests.entries.filter(
      ({ verb, resource }) => verb === 'create' && ['secrets', 'tlscontexts'].includes(resource),
    );
    const sides = writes.filter(({ resource }, at) => resource !== writes[at - 1]?.resource);
    assert.deepEqual(
      sides.map(({ resource }) => resource),
      ['secrets', 'tlscontexts'],
    );
    assert.equal(writes.length, 300);
    const lastSecret = Math.max(...writes.filter(({ resource }) => resource === 'secrets').map(({ at }) => at));
    const firstContext = Math.min(...writes.filter(({ resource }) => resource === 'tlscontexts').map(({ at }) => at));
    assert.ok(firstContext - lastSecret >= 2_000, `${firstContext - lastSecret} ms`);
    assert.equal(statuses(), 100);
  });
});
