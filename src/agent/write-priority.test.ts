import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { WritePriority } from './write-order.ts';

function rig() {
  const clock = new FakeClock();
  const priority = new WritePriority(clock);
  const stop = new AbortController();
  const open: Disposable[] = [];
  const refused: unknown[] = [];
  return {
    clock,
    priority,
    stop,
    open,
    refused,
    async ask(count: number) {
      for (let n = 0; n < count; n++) {
        priority.later(stop.signal).then(
          (turn) => open.push(turn),
          (reason) => refused.push(reason),
        );
      }
      await settle();
    },
    async end() {
      open.shift()?.[Symbol.dispose]();
      await settle();
    },
  };
}

describe('later writes', () => {
  it('go at once, sixteen at a time, while nothing is urgent', async () => {
    const { ask, end, open } = rig();
    await ask(18);
    assert.equal(open.length, 16);
    await end();
    await end();
    assert.equal(open.length, 16);
  });

  it('wait for all urgent writes', async () => {
    const { ask, open, priority } = rig();
    const urgent = [priority.urgent(), priority.urgent()];
    await ask(2);
    urgent[0]?.[Symbol.dispose]();
    urgent[0]?.[Symbol.dispose]();
    await settle();
    assert.equal(open.length, 0);
    urgent[1]?.[Symbol.dispose]();
    await settle();
    assert.equal(open.length, 2);
  });

  it('go one at a time once they have waited for five seconds, whatever is urgent', async () => {
    const { ask, clock, end, open, priority } = rig();
    priority.urgent();
    await ask(2);
    await clock.advance(4_999);
    assert.equal(open.length, 0);
    await clock.advance(1);
    assert.equal(open.length, 1);
    await end();
    assert.equal(open.length, 1);
    await end();
    await ask(1);
    assert.equal(open.length, 0);
    await clock.advance(5_000);
    assert.equal(open.length, 1);
  });

  it('wait for a moment after an urgent write when more are coming', async () => {
    const { ask, clock, open, priority } = rig();
    const issue = priority.coming();
    priority.urgent()[Symbol.dispose]();
    await ask(1);
    await clock.advance(200);
    priority.urgent()[Symbol.dispose]();
    await clock.advance(249);
    assert.equal(open.length, 0);
    await clock.advance(1);
    assert.equal(open.length, 1);
    issue[Symbol.dispose]();
  });

  it('do not wait for a moment when no more are coming, nor for a write that is only announced', async () => {
    const { ask, clock, open, priority } = rig();
    const issue = priority.coming();
    await ask(1);
    assert.equal(open.length, 1);
    priority.urgent()[Symbol.dispose]();
    await ask(1);
    assert.equal(open.length, 1);
    issue[Symbol.dispose]();
    await settle();
    assert.equal(open.length, 2);
    assert.equal(clock.sleeping, 0);
  });

  it('that are cancelled free their place, and leave no timer behind', async () => {
    const { ask, clock, priority, refused, stop } = rig();
    const urgent = priority.urgent();
    await ask(2);
    stop.abort(new Error('over'));
    await settle();
    assert.equal(refused.length, 2);
    urgent[Symbol.dispose]();
    await settle();
    assert.equal(clock.sleeping, 0);
  });
});
