import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { linkedTo } from './linked-signal.ts';

test('a linked signal follows whichever parent is aborted, with its reason', () => {
  const [first, second] = [new AbortController(), new AbortController()];
  using linked = linkedTo(first.signal, undefined, second.signal);
  second.abort('why');
  assert.equal(linked.signal.reason, 'why');
  assert.equal(linkedTo(first.signal, second.signal).signal.reason, 'why');
});

test('a linked signal that is disposed of follows nobody and leaves nothing behind', () => {
  const parent = new AbortController();
  const linked = linkedTo(parent.signal);
  assert.equal(getEventListeners(parent.signal, 'abort').length, 1);
  linked[Symbol.dispose]();
  assert.equal(getEventListeners(parent.signal, 'abort').length, 0);
  parent.abort();
  assert.equal(linked.signal.aborted, false);
});
