import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { it } from 'node:test';
import { UnderWay } from './latest-value.ts';

it('aborts work in progress and work that begins later, but not work that is done', () => {
  const owner = new UnderWay();
  const caller = new AbortController();
  const [first, second, done] = [owner.begin(caller.signal), owner.begin(), owner.begin(caller.signal)];
  done[Symbol.dispose]();
  const reason = new Error('disposed of');
  owner.end(reason);
  owner.end(new Error('again'));
  assert.deepEqual(
    [first, second, owner.begin(caller.signal)].map(({ signal }) => signal.reason),
    [reason, reason, reason],
  );
  assert.equal(done.signal.aborted, false);
});

it('ends one piece of work with its caller, and leaves no listener', () => {
  const owner = new UnderWay();
  const caller = new AbortController();
  const [mine, other] = [owner.begin(caller.signal), owner.begin()];
  caller.abort(new Error('enough'));
  assert.deepEqual([mine.signal.aborted, other.signal.aborted], [true, false]);
  mine[Symbol.dispose]();
  other[Symbol.dispose]();
  assert.equal(getEventListeners(caller.signal, 'abort').length, 0);
});
