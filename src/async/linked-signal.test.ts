import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { limitedTo, linkedTo } from './linked-signal.ts';

test('a linked signal follows whichever parent is aborted first, with its reason', () => {
  const [first, second] = [new AbortController(), new AbortController()];
  using linked = linkedTo(first.signal, undefined, second.signal);
  second.abort('why');
  assert.equal(linked.signal.reason, 'why');
  assert.equal(linkedTo(first.signal, second.signal).signal.reason, 'why');
});

test('a linked signal that is disposed of follows no parent and leaves nothing behind', () => {
  const parent = new AbortController();
  const linked = linkedTo(parent.signal);
  assert.equal(getEventListeners(parent.signal, 'abort').length, 1);
  linked[Symbol.dispose]();
  assert.equal(getEventListeners(parent.signal, 'abort').length, 0);
  parent.abort();
  assert.equal(linked.signal.aborted, false);
});

test('a limited signal is aborted when its time is over or with its parent, and not after it is disposed of', async () => {
  const clock = new FakeClock();
  const late = () => new Error('late');
  const slow = limitedTo(clock, 1000, late);
  await clock.advance(1000);
  assert.equal((slow.signal.reason as Error).message, 'late');
  const parent = new AbortController();
  const cut = limitedTo(clock, 1000, late, parent.signal);
  parent.abort(new Error('cut'));
  assert.equal((cut.signal.reason as Error).message, 'cut');
  cut[Symbol.dispose]();
  const done = limitedTo(clock, 1000, late);
  done[Symbol.dispose]();
  assert.equal(clock.sleeping, 0);
  assert.equal(done.signal.aborted, false);
});
