import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Semaphore } from './limits.ts';
import { sharing } from './sharing.ts';

it('makes one thing for all concurrent requests, and closes it with the last', () => {
  const share = sharing();
  let made = 0;
  let closed = 0;
  const make = () => {
    made += 1;
    return {
      [Symbol.dispose]: () => {
        closed += 1;
      },
    };
  };
  const [first, second, other] = [share('a', make), share('a', make), share('b', make)];
  assert.equal(first.value, second.value);
  assert.notEqual(first.value, other.value);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert.equal(closed, 0, 'letting go twice is letting go once');
  second[Symbol.dispose]();
  assert.equal(closed, 1);
  using _again = share('a', make);
  assert.equal(made, 3);
});

it('limits concurrency, in order of arrival, and forgets a caller that gave up', async () => {
  const turns = new Semaphore(2);
  const { signal } = new AbortController();
  const [first] = [await turns.take(signal), await turns.take(signal)];
  const log: string[] = [];
  const third = turns.take(signal).then(() => log.push('third'));
  const leaving = new AbortController();
  const gaveUp = turns.take(leaving.signal);
  const fifth = turns.take(signal).then(() => log.push('fifth'));
  leaving.abort(new Error('gave up'));
  await assert.rejects(gaveUp, /gave up/);
  assert.deepEqual(log, []);
  first[Symbol.dispose]();
  await third;
  assert.deepEqual(log, ['third']);
  (await turns.take(AbortSignal.abort(new Error('late'))).catch(() => first))[Symbol.dispose]();
  assert.deepEqual(log, ['third'], 'a turn ends once');
  void fifth;
});
