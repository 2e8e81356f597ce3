import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { fields } from '../../src/objects/objects.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { Crl } from '../../src/pki/crl.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';

const OTHER = 'other.example';
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** From now on the mesh names these roots for upstreams of another trust domain. */
function federate(world: AgentWorld, roots: readonly Certificate[], trustDomain = OTHER): void {
  world.mesh.answer = (identity) => ({ ...identity, upstream: { trustDomain, roots } });
}

async function roots(world: AgentWorld, secret: string, key = 'ca.crt'): Promise<string[]> {
  const text = fields((await world.secret(secret))?.data)[key];
  if (text === undefined) return [];
  return parseCertificates(Buffer.from(String(text), 'base64').toString('utf8')).map((one) => one.fingerprint);
}

const prints = (...certificates: readonly Certificate[]) => certificates.map(({ fingerprint }) => fingerprint);

describe('trust in upstreams of another trust domain', () => {
  it('is published without the roots of the identity, which stand only beside the pair', async () => {
    await using world = await AgentWorld.start();
    const foreign = SandboxCa.root({ clock: world.clock, name: 'Foreign' }).certificate;
    federate(world, [foreign]);
    world.run();
    await world.untilReady();
    assert.deepEqual(await roots(world, 'istio-ca'), prints(foreign));
    assert.deepEqual(await roots(world, 'istio-ca', 'tls.crt'), prints(foreign));
    assert.deepEqual(await roots(world, 'istio-identity'), prints(world.mesh.ca.certificate));
    assert.deepEqual(
      world.status?.roots.map(({ fingerprint }) => fingerprint),
      prints(foreign),
    );
    assert.equal((await world.secret('istio-ca'))?.metadata.annotations?.['meshcert.dev/upstream-trust-domain'], OTHER);
  });

  it('follows its own rotation, with retention, and both trusts survive a restart without a write', async () => {
    await using world = await AgentWorld.start();
    const [first, second] = ['First', 'Second'].map(
      (name) => SandboxCa.root({ clock: world.clock, name }).certificate,
    ) as [Certificate, Certificate];
    federate(world, [first]);
    world.run({ trust: { retain: '2h' } });
    await world.untilReady();
    federate(world, [second]);
    await world.until('both roots', async () => (await roots(world, 'istio-ca')).length === 2, MINUTE);
    assert.deepEqual(new Set(await roots(world, 'istio-ca')), new Set(prints(first, second)));
    await world.stop();
    const writes = () => world.api.requests.entries.filter(({ verb }) => verb === 'create' || verb === 'patch').length;
    const before = writes();
    world.run({ trust: { retain: '2h' } });
    await world.untilReady();
    assert.equal(writes(), before);
    await world.until(
      'the end of the old root',
      async () => (await roots(world, 'istio-ca')).length === 1,
      10 * MINUTE,
    );
    assert.deepEqual(await roots(world, 'istio-ca'), prints(second));
    assert.deepEqual(await roots(world, 'istio-identity'), prints(world.mesh.ca.certificate));
  });

  it('holds a leaf under a new root of the own domain back, and takes that root beside the pair first', async () => {
    await using world = await AgentWorld.start();
    const foreign = SandboxCa.root({ clock: world.clock, name: 'Foreign' }).certificate;
    federate(world, [foreign]);
    world.run({ trust: { hold: '30m' } });
    await world.untilReady();
    const before = world.status?.fingerprint;
    const next = SandboxCa.root({ clock: world.clock, name: 'Next' });
    world.mesh.rotate(next, [world.mesh.ca.certificate, next.certificate]);
    await world.until('the hold', () => world.condition('Trusted')?.reason === 'LeafHeld', MINUTE);
    assert.equal(world.status?.fingerprint, before);
    await world.until('both roots', async () => (await roots(world, 'istio-identity')).length === 2, 1_000);
    await world.until('the new leaf', () => world.status?.fingerprint !== before, MINUTE);
    assert.deepEqual(await roots(world, 'istio-ca'), prints(foreign));
  });

  it('is never replaced by that of the own domain while the mesh does not answer', async () => {
    await using world = await AgentWorld.start();
    const foreign = SandboxCa.root({ clock: world.clock, name: 'Foreign' }).certificate;
    federate(world, [foreign]);
    world.run();
    await world.untilReady();
    await world.stop();
    world.mesh.outage = true;
    await world.kube.delete({ apiVersion: 'v1', kind: 'Secret', namespace: NAMESPACE, name: 'istio-ca' }, {});
    world.run();
    await world.untilCode('ERR_VERIFY_EMPTY_BUNDLE');
    assert.equal(await world.secret('istio-ca'), undefined);
    world.mesh.outage = false;
    await world.until('the bundle', async () => (await roots(world, 'istio-ca')).length > 0, MINUTE);
    assert.deepEqual(await roots(world, 'istio-ca'), prints(foreign));
  });

  it('stays as it was while Envoy would not load a root that the mesh names', async () => {
    await using world = await AgentWorld.start();
    const ca = SandboxCa.root({ clock: world.clock, name: 'Foreign' });
    federate(world, [ca.certificate]);
    world.run();
    await world.untilReady();
    const unloaded = ca.issue(PrivateKey.generate(), { uris: ['spiffe://x/y'], lifetimeMs: HOUR, version: 1 });
    federate(world, [ca.certificate, unloaded]);
    await world.until('the refusal', () => world.status?.lastError?.code === 'ERR_VERIFY_VERSION', MINUTE);
    assert.deepEqual(await roots(world, 'istio-ca'), prints(ca.certificate));
  });

  it('never holds roots of two domains when the domain changes', async () => {
    await using world = await AgentWorld.start();
    const [foreign, third] = ['Foreign', 'Third'].map(
      (name) => SandboxCa.root({ clock: world.clock, name }).certificate,
    ) as [Certificate, Certificate];
    const seen = new Set<number>();
    federate(world, [foreign]);
    world.run();
    await world.untilReady();
    for (const [wanted, change] of [
      [third, () => federate(world, [third], 'third.example')],
      [
        world.mesh.ca.certificate,
        () => {
          world.mesh.answer = undefined;
        },
      ],
      [foreign, () => federate(world, [foreign])],
    ] as const) {
      change();
      await world.until(
        'the other bundle',
        async () => {
          const now = await roots(world, 'istio-ca');
          seen.add(now.length);
          return now.join() === prints(wanted).join();
        },
        MINUTE,
      );
    }
    assert.deepEqual([...seen], [1]);
  });

  it('is published without CRLs, which are those of the own domain', async () => {
    await using world = await AgentWorld.start();
    federate(world, [SandboxCa.root({ clock: world.clock, name: 'Foreign' }).certificate]);
    world.mesh.crls = [Crl.fromDer(world.mesh.ca.crl())];
    world.mesh.lifetimeMs = HOUR;
    world.run({ trust: { crl: true } });
    await world.untilCode('ERR_CRL_MISSING');
    assert.equal(await world.secret('istio-crl'), undefined);
    assert.equal(world.condition('Ready')?.status, 'True');
  });
});
