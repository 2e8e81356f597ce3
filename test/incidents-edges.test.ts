import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { emergencyAt, renewAt } from '../src/core/schedule.ts';
import { AgentWorld } from './support/agent-world.ts';

const HOUR = 3_600_000;
const YEAR = 8_766 * HOUR;
const NOW = Date.UTC(2030, 0, 1);

describe('incidents of others', () => {
  it('a leaf of any lifetime is due at a real moment within it (cert-manager issue 8947)', () => {
    for (const lifetimeMs of [0, 1, 999, 60_000, HOUR, 90 * 24 * HOUR, YEAR, 100 * YEAR, 7_900 * YEAR]) {
      const leaf = { notBefore: NOW, notAfter: NOW + lifetimeMs, fingerprint: 'f'.repeat(64) };
      for (const [at, jitter] of [
        [0.1, 0],
        [0.6, 0.06],
        [0.85, 0.05],
      ] as const) {
        const due = renewAt(leaf, at, jitter);
        assert.ok(Number.isSafeInteger(due), `${due}`);
        assert.ok(due >= leaf.notBefore && due <= leaf.notAfter);
        assert.ok(due <= emergencyAt(leaf) + 1, 'and no later than its emergency');
      }
    }
  });

  it('comes back by itself after everything that was published has expired (linkerd2 issue 4808)', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const first = await world.leaf();
    world.mesh.outage = true;
    await world.clock.advance(2 * HOUR);
    await world.until('an end to Ready', () => world.condition('Ready')?.status === 'False', 60_000);
    assert.equal(await world.leaf(), first, 'what expired stays: a missing Secret would mean plaintext');
    world.mesh.outage = false;
    await world.until('a new leaf', async () => (await world.leaf()) !== first, 10_000);
    await world.untilReady();
    await world.stop();
    world.mesh.outage = true;
    await world.clock.advance(2 * HOUR);
    world.run();
    await world.untilCode('ERR_MESH_UNREACHABLE');
    world.mesh.outage = false;
    await world.untilReady();
  });

  it('rotates for the tenth time as for the first (istio issue 59912)', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const leaves = new Set([await world.leaf()]);
    for (let rotation = 1; rotation <= 10; rotation++) {
      await world.until(
        `rotation ${rotation}`,
        async () => leaves.size < leaves.add(await world.leaf()).size || leaves.size > rotation,
        60_000,
      );
    }
    assert.equal(leaves.size, 11);
    assert.equal(world.mesh.issued, 11);
  });

  it('a write that lost its race costs neither a certificate nor an hour (cert-manager issue 8514)', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const first = await world.leaf();
    let races = 0;
    world.api.fault({
      match: ({ verb, name }) => verb === 'patch' && name === 'istio-identity',
      times: 5,
      status: 409,
      met: () => {
        races += 1;
      },
    });
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    const asked = world.clock.now();
    await world.until('the new leaf', async () => (await world.leaf()) !== first);
    assert.equal(races, 5);
    assert.equal(world.mesh.issued, 2);
    assert.ok(world.clock.now() - asked < HOUR / 10, `${world.clock.now() - asked} ms`);
  });
});
