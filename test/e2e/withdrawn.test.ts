import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { EventSink } from '../../src/agent/sinks.ts';
import { AgentWorld } from '../support/agent-world.ts';

const DAY = 24 * 3_600_000;
const bundle = async (world: AgentWorld) => (await world.published()).bundle.map(({ fingerprint }) => fingerprint);

/** Publishes a leaf under the first root, with both in the bundle. */
async function withTwoRoots(world: AgentWorld) {
  const [old, next] = [world.mesh.ca, SandboxCa.root({ clock: world.clock, name: 'Next' })];
  world.mesh.roots = [old.certificate, next.certificate];
  world.run({ trust: { retain: '24h' } });
  await world.untilReady();
  await world.stop();
  return { next, fingerprint: old.certificate.fingerprint };
}

describe('a root in spec.trust.withdrawn', () => {
  it('leaves every bundle at once, although the mesh revoked it a moment ago, and the certificate stays', async () => {
    await using world = await AgentWorld.start();
    const { next, fingerprint } = await withTwoRoots(world);
    world.run({ trust: { retain: '24h', hold: '0s' } });
    world.mesh.rotate(next, [next.certificate]);
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.until('the next leaf', async () => {
      const [leaf] = (await world.published()).identity?.chain ?? [];
      return leaf?.isIssuedBy(next.certificate) === true;
    });
    assert.ok((await bundle(world)).includes(fingerprint), 'it is retained');
    await world.stop();

    const start = world.clock.now();
    // Upper case and colons, as openssl prints it.
    const printed = fingerprint.toUpperCase().replace(/(..)(?!$)/g, '$1:');
    world.run({ trust: { retain: '24h', hold: '0s', withdrawn: [printed] } });
    await world.until('its end', async () => !(await bundle(world)).includes(fingerprint));
    assert.ok(world.clock.now() - start < DAY / 2);
    assert.deepEqual(await bundle(world), [next.certificate.fingerprint]);
    await world.untilReady();
    assert.equal((await world.published()).identity?.chain[0]?.isIssuedBy(next.certificate), true);
  });

  it('leaves at once while the mesh still issues under it: its leaf stays until another comes', async () => {
    await using world = await AgentWorld.start();
    const [old, next] = [world.mesh.ca.certificate, SandboxCa.root({ clock: world.clock, name: 'Next' })];
    world.mesh.roots = [old, next.certificate];
    const events: string[] = [];
    const recorder = { event: (_on: unknown, _type: string, ...said: string[]) => void events.push(said.join(' ')) };
    world.putCertificate();
    world.follow(false, [new EventSink(recorder as never)]);
    await world.untilReady();
    const leaf = await world.leaf();
    const { fingerprint } = old;
    world.putCertificate({ trust: { withdrawn: [fingerprint] } });
    await world.until('its end', async () => !(await bundle(world)).includes(fingerprint));
    await world.untilCode('ERR_TRUST_WITHDRAWN');
    assert.match(world.status?.lastError?.message ?? '', /ends at a root in spec\.trust\.withdrawn/);
    assert.equal(await world.leaf(), leaf, 'no leaf under it is published');
    assert.equal(world.condition('Ready')?.status, 'False');
    assert.match(world.condition('Trusted')?.message ?? '', new RegExp(fingerprint.slice(0, 16)));
    const about = (lines: readonly string[], what: RegExp) => lines.filter((line) => what.test(line)).length;
    assert.equal(about(events, new RegExp(`^RootWithdrawn .*${fingerprint.slice(0, 16)}`)), 1);
    assert.equal(about(world.lines, new RegExp(`the root is withdrawn .*${fingerprint}`)), 1);

    world.mesh.rotate(next, [old, next.certificate]);
    // As `meshcert renew` does; without it the mesh is asked again within five minutes.
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.until('a leaf under the other root', async () => {
      const [first] = (await world.published()).identity?.chain ?? [];
      return first?.isIssuedBy(next.certificate) === true;
    });
    await world.untilReady();
    assert.deepEqual(await bundle(world), [next.certificate.fingerprint]);
  });

  it('stays while it is the only root, with the reason', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    await world.stop();
    const { fingerprint } = world.mesh.ca.certificate;
    world.run({ trust: { withdrawn: [fingerprint] } });
    await world.untilCode('ERR_TRUST_WITHDRAWN');
    assert.deepEqual(await bundle(world), [fingerprint]);
    assert.equal(world.condition('Ready')?.status, 'True');
  });

  it('is never published as the first one', async () => {
    await using world = await AgentWorld.start();
    world.run({ trust: { withdrawn: [world.mesh.ca.certificate.fingerprint] } });
    await world.untilCode('ERR_TRUST_WITHDRAWN');
    assert.equal(await world.secret('istio-ca'), undefined);
  });
});
