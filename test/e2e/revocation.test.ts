import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { fields } from '../../src/objects/objects.ts';
import { Crl } from '../../src/pki/crl.ts';
import { opensslPreflight } from '../../src/preflight/preflight.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { FakeClock } from '../support/fake-clock.ts';

const SPEC = { trust: { crl: true } };
const HOUR = 3_600_000;

/** OpenSSL judges by the real time, so the clock of the world starts there. */
async function startWorld(): Promise<AgentWorld> {
  const world = await AgentWorld.start({}, new FakeClock(Date.now()));
  world.preflight = opensslPreflight();
  return world;
}

const contextSpec = async ({ kube }: AgentWorld) => {
  const ref = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext', namespace: NAMESPACE, name: 'istio' };
  return fields((await kube.get(ref))?.spec);
};
const publishedCrl = async (world: AgentWorld): Promise<string | undefined> => {
  const text = fields((await world.secret('istio-crl'))?.data)['crl.pem'];
  return text === undefined ? undefined : Buffer.from(String(text), 'base64').toString('utf8');
};
const names = async (world: AgentWorld) => (await contextSpec(world)).crl_secret;

describe('the CRLs of a mesh', () => {
  it('are published before the TLSContext names them, and follow the mesh', async () => {
    await using world = await startWorld();
    const first = Crl.fromDer(world.mesh.ca.crl());
    world.mesh.crls = [first];
    world.run(SPEC);
    await world.until('the CRL', async () => (await names(world)) === 'istio-crl', 1_000);
    assert.equal(await publishedCrl(world), first.pem);
    const second = Crl.fromDer(world.mesh.ca.crl({ number: 2, thisUpdate: world.clock.now() }));
    world.mesh.revoke([first, second]);
    await world.until('the next CRL', async () => (await publishedCrl(world)) === second.pem, 1_000);
  });

  it('are held back with the reason while an authority of the chain has none', async () => {
    await using world = await startWorld();
    const root = world.mesh.ca;
    const intermediate = root.intermediate({ name: 'Intermediate' });
    world.mesh.rotate(intermediate, [root.certificate]);
    world.mesh.crls = [Crl.fromDer(intermediate.crl())];
    world.run(SPEC);
    await world.untilCode('ERR_CRL_MISSING');
    assert.equal(world.condition('Ready')?.status, 'True');
    assert.equal(await publishedCrl(world), undefined);
    assert.equal(await names(world), undefined);
    world.mesh.revoke([...world.mesh.crls, Crl.fromDer(root.crl())]);
    await world.until('the CRLs', async () => (await names(world)) === 'istio-crl', 1_000);
  });

  it('are held back when OpenSSL refuses the own certificate by them', async () => {
    await using world = await startWorld();
    world.mesh.crls = [Crl.fromDer(SandboxCa.root({ clock: world.clock }).crl())];
    world.run(SPEC);
    await world.untilCode('ERR_CRL_REFUSED');
    assert.equal(await names(world), undefined);
    assert.equal(world.condition('Ready')?.status, 'True');
  });

  it('leave the TLSContext before they expire, and stay over a restart until then', async () => {
    await using world = await startWorld();
    world.mesh.lifetimeMs = 24 * HOUR;
    world.mesh.crls = [Crl.fromDer(world.mesh.ca.crl({ nextUpdate: world.clock.now() + HOUR }))];
    world.run(SPEC);
    await world.until('the CRL', async () => (await names(world)) === 'istio-crl', 1_000);
    await world.stop();
    const writes = () => world.api.requests.entries.filter(({ verb }) => verb === 'create' || verb === 'patch').length;
    const before = writes();
    world.run(SPEC);
    await world.untilReady();
    assert.equal(writes(), before);
    await world.until('the end', async () => (await names(world)) === undefined, 60_000);
    assert.ok(world.clock.now() < (world.mesh.crls[0]?.nextUpdate ?? 0));
  });

  it('are not asked for unless the object says so', async () => {
    await using world = await startWorld();
    world.mesh.crls = [Crl.fromDer(world.mesh.ca.crl())];
    world.run();
    await world.untilReady();
    assert.equal(await publishedCrl(world), undefined);
    assert.equal(await names(world), undefined);
  });
});
