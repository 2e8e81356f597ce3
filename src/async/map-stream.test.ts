import assert from 'node:assert/strict';
import { it } from 'node:test';
import { mapStream } from './latest-value.ts';

async function* values<T>(all: readonly T[], log: string[]): AsyncGenerator<T> {
  try {
    yield* all;
  } finally {
    log.push('closed');
  }
}

it('omits what it is asked to omit, and what is the same as right before', async () => {
  const log: string[] = [];
  const seen = [];
  const read = (value: number) => (value < 0 ? undefined : value);
  for await (const value of mapStream(values([1, -1, 1, 2, 2, 1], log), { read, over: () => log.push('over') })) {
    seen.push(value);
  }
  assert.deepEqual(seen, [1, 1, 2, 1]);
  assert.deepEqual(log, ['closed', 'over']);
});

it('closes what it reads when nobody wants more, and when it cannot go on', async () => {
  const log: string[] = [];
  const read = (value: number) => {
    if (value > 1) throw new Error('too much');
    return value;
  };
  const open = () => mapStream(values([1, 2], log), { read, over: () => log.push('over') });
  for await (const _ of open()) break;
  assert.deepEqual(log.splice(0), ['closed', 'over']);
  const all = open();
  await all.next();
  await assert.rejects(all.next(), /too much/);
  assert.deepEqual(log, ['closed', 'over']);
  assert.equal((await all.next()).done, true);
});
