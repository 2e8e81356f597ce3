import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Changes, Trigger } from './trigger.ts';

const outcome = async (promise: Promise<void>) => promise.then(() => 'woken').catch((error: Error) => error.message);

test('a wait ends at the next fire, and at once after one that was missed', async () => {
  const trigger = new Trigger();
  const { signal } = new AbortController();
  const waiting = trigger.wait(signal);
  trigger.fire();
  await waiting;
  trigger.fire();
  await trigger.wait(signal);
});

test('each fire wakes one waiter, the longest waiting first', async () => {
  const trigger = new Trigger();
  const stop = new AbortController();
  const first = outcome(trigger.wait(stop.signal));
  const second = outcome(trigger.wait(stop.signal));
  trigger.fire();
  assert.equal(await first, 'woken');
  stop.abort(new Error('stopped'));
  assert.equal(await second, 'stopped');
});

test('a wait with a time limit ends with the time, and leaves nothing behind however it ends', async () => {
  const clock = new FakeClock();
  const trigger = new Trigger();
  const stop = new AbortController();
  const late = outcome(trigger.waitFor(1000, clock, stop.signal));
  await clock.advance(1000);
  assert.equal(await late, 'woken');
  const woken = outcome(trigger.waitFor(1000, clock, stop.signal));
  trigger.fire();
  assert.equal(await woken, 'woken');
  assert.equal(clock.sleeping, 0);
  const aborted = outcome(trigger.waitFor(1000, clock, stop.signal));
  stop.abort(new Error('stopped'));
  assert.equal(await aborted, 'stopped');
  assert.equal(clock.sleeping, 0);
  assert.equal(await outcome(trigger.waitFor(1000, clock, stop.signal)), 'stopped');
  assert.equal(clock.sleeping, 0);
});

test('each of those who wait for changes looks now and after each change, and none is forgotten', async () => {
  const changes = new Changes();
  const stop = new AbortController();
  const { signal } = stop;
  let count = 0;
  const change = () => {
    count += 1;
    changes.announce();
  };
  await changes.until(() => true, signal);
  const waits = [1, 2, 2].map((wanted) => changes.until(() => count >= wanted, signal).then(() => count));
  const next = changes.next(signal).then(() => count);
  change();
  assert.deepEqual(await Promise.all([waits[0], next]), [1, 1]);
  change();
  assert.deepEqual(await Promise.all(waits.slice(1)), [2, 2]);
  const aborted = outcome(changes.next(signal));
  stop.abort(new Error('enough'));
  assert.equal(await aborted, 'enough');
});
