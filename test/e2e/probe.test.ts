import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Certificate } from '../../src/pki/certificate.ts';
import { SandboxCa } from '../../src/sandbox/ca.ts';
import { startUpstream } from '../../src/sandbox/upstream.ts';
import { AgentWorld } from '../support/agent-world.ts';

describe('a leaf under a new root', () => {
  it('is held for as long as the probed upstream refuses it, and published when it accepts', async () => {
    await using world = await AgentWorld.start();
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
      await world.until('a refusal', () => world.status?.held?.reason === 'probe_refused');
      const later = world.clock.now() + 90_000;
      await world.until('a time past the hold', () => world.clock.now() > later, 1_000);
      assert.equal(await world.leaf(), first, 'past the hold: a refusal outlasts it');
      assert.match(world.condition('Trusted')?.message ?? '', /restart workloads/);
      trust = [old.root, next.root];
      await world.until('the new leaf', async () => (await world.leaf()) !== first, 1_000);
      await world.untilReady();
      assert.equal(world.status?.held, undefined);
    } finally {
      await upstream.stop();
    }
  });
});
