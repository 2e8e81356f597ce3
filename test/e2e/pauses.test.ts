import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Sink } from '../../src/agent/reporter.ts';
import { AgentWorld } from '../support/agent-world.ts';
import { SwitchedLeadership } from '../support/switched-leadership.ts';

const REFUSED = { ok: false, code: 'ERR_VERIFY_PREFLIGHT', message: 'OpenSSL refuses the pair: unhandled' } as const;

/** Counts the reconciles. A reconciler that never pauses would not let the test end: it is stopped. */
class Passes implements Sink {
  count = 0;
  status(): void {
    this.count += 1;
    if (this.count > 1_000) throw new Error('the worker does not pause');
  }

  async assertCalm(world: AgentWorld): Promise<void> {
    const until = world.clock.now() + 300_000;
    this.count = 0;
    await world.until('5 minutes', () => this.count > 20 || world.clock.now() >= until, 1_000);
    assert.ok(this.count <= 20, `${this.count} passes in 5 minutes`);
  }
}

describe('a reconciler pauses', () => {
  it('after a refusal in the preflight handshake that no longer matters', async () => {
    await using world = await AgentWorld.start();
    const passes = new Passes();
    world.run({}, [passes]);
    await world.untilReady();
    world.preflight = async () => REFUSED;
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.untilCode('ERR_VERIFY_PREFLIGHT');
    world.preflight = async () => ({ ok: true });
    const first = await world.leaf();
    await world.until('the next leaf', async () => (await world.leaf()) !== first, 10_000);
    await passes.assertCalm(world);
  });

  it('when it loses its Lease after a write that failed', async () => {
    await using first = await AgentWorld.start();
    const leadership = new SwitchedLeadership(true);
    await using world = AgentWorld.beside(first, leadership);
    const passes = new Passes();
    world.run({}, [passes]);
    await world.untilReady();
    world.api.fault({ match: ({ verb, plural }) => verb === 'patch' && plural === 'secrets', status: 500 });
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.untilCode('ERR_KUBE_SERVER');
    leadership.change(false);
    await passes.assertCalm(world);

    const before = await world.leaf();
    world.api.clearFaults();
    leadership.change(true);
    await world.until('the next leaf', async () => (await world.leaf()) !== before, 1_000);
  });
});
