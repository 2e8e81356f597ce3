import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { startUpstream } from '../../sandbox/tls/upstream.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { AgentWorld } from '../support/agent-world.ts';
import { FakeClock } from '../support/fake-clock.ts';

const MINUTE = 60_000;
/** Milliseconds: steps so small that a handshake on loopback completes before the clock times it out. */
const PROBED = 50;
/** TLS judges by the time of the machine, so everything issued within half an hour must be valid by that too. */
const clockOfNow = () => new FakeClock(Date.now() - 30 * MINUTE);

describe('a leaf under a new root', () => {
  it('is held for as long as the probed upstream refuses it, and published when it accepts', async () => {
    await using world = await AgentWorld.start({}, clockOfNow());
    const old = world.mesh.ca;
    const next = SandboxCa.root({ clock: world.clock });
    let trust: readonly Certificate[] = [old.root];
    const web = old.identity({ uris: ['spiffe://toy/ns/shop/sa/web'] });
    const upstream = await startUpstream({ identity: () => web, trust: () => trust });
    try {
      world.run({
        trust: { hold: '1m' },
        probe: { address: `127.0.0.1:${upstream.port}`, id: 'spiffe://toy/ns/shop/sa/web' },
      });
      await world.untilReady();
      const first = await world.leaf();
      world.mesh.rotate(next, [old.root, next.root]);
      await world.until('a refusal', () => world.status?.held?.reason === 'probe_refused', PROBED);
      const later = world.clock.now() + 90_000;
      await world.until('a time past the hold', () => world.clock.now() > later, 1_000);
      assert.equal(await world.leaf(), first, 'past the hold: a refusal outlasts it');
      assert.match(world.condition('Trusted')?.message ?? '', /restart workloads/);
      trust = [old.root, next.root];
      await world.until('the new leaf', () => world.status?.fingerprint !== first, PROBED);
      await world.untilReady();
      assert.equal(world.status?.held, undefined);
    } finally {
      await upstream.stop();
    }
  });

  it('is not held longer than the hold time by a probe that reaches no upstream, and the status says why', async () => {
    await using world = await AgentWorld.start({}, clockOfNow());
    const old = world.mesh.ca;
    const next = SandboxCa.root({ clock: world.clock });
    const web = old.identity({ uris: ['spiffe://toy/ns/shop/sa/web'] });
    const upstream = await startUpstream({ identity: () => web, trust: () => [old.root] });
    await upstream.stop();
    world.run({ trust: { hold: '1m' }, probe: { address: `127.0.0.1:${upstream.port}` } });
    await world.untilReady();
    const first = await world.leaf();
    world.mesh.rotate(next, [old.root, next.root]);
    await world.until('the reason', () => /ERR_PROBE_UNREACHABLE/.test(world.condition('Trusted')?.message ?? ''));
    assert.equal(world.status?.held?.reason, 'new_root');
    assert.equal(await world.leaf(), first);
    await world.until('the new leaf', async () => (await world.leaf()) !== first, 1_000);
    await world.untilReady();
    assert.equal(world.status?.held, undefined);
  });

  it('stays held while the upstream that refused it cannot be reached, for example during its restart', async () => {
    await using world = await AgentWorld.start({}, clockOfNow());
    const old = world.mesh.ca;
    const next = SandboxCa.root({ clock: world.clock });
    const web = old.identity({ uris: ['spiffe://toy/ns/shop/sa/web'] });
    const upstream = await startUpstream({ identity: () => web, trust: () => [old.root] });
    try {
      world.run({ trust: { hold: '1m' }, probe: { address: `127.0.0.1:${upstream.port}` } });
      await world.untilReady();
      const first = await world.leaf();
      world.mesh.rotate(next, [old.root, next.root]);
      await world.until('a refusal', () => world.status?.held?.reason === 'probe_refused', PROBED);
      await upstream.stop();
      await world.until(
        'the reason',
        () => /ERR_PROBE_UNREACHABLE/.test(world.condition('Trusted')?.message ?? ''),
        1_000,
      );
      const later = world.clock.now() + 90_000;
      await world.until('a time past the hold', () => world.clock.now() > later, 1_000);
      assert.deepEqual([await world.leaf(), world.status?.held?.reason], [first, 'probe_refused']);
    } finally {
      await upstream.stop();
    }
  });
});
