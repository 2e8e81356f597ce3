import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { TokenBucket } from './limits.ts';

test('it gives a burst at once, then one token for each refill, and never saves more than the burst', async () => {
  const clock = new FakeClock();
  const bucket = new TokenBucket({ clock, burst: 2, refillMs: 1000 });
  const takeAll = () => {
    let taken = 0;
    while (bucket.tryTake()) taken += 1;
    return taken;
  };
  assert.equal(takeAll(), 2);
  await clock.advance(999);
  assert.equal(takeAll(), 0);
  await clock.advance(1);
  assert.equal(takeAll(), 1);
  await clock.advance(3_600_000);
  assert.equal(takeAll(), 2);
});
