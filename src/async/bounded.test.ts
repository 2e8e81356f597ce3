import assert from 'node:assert/strict';
import { it } from 'node:test';
import { bounded } from './limits.ts';

async function* pieces(...sizes: readonly number[]) {
  for (const size of sizes) yield new Uint8Array(size).fill(size);
}

it('a stream is collected up to a limit, whatever the size of its pieces', async () => {
  assert.deepEqual(await bounded(pieces(), 10), Buffer.alloc(0));
  assert.deepEqual(await bounded(pieces(1, 2, 3), 6), Buffer.from([1, 2, 2, 3, 3, 3]));
  assert.equal(await bounded(pieces(1, 2, 4), 6), undefined);
  const many = (length: number) => pieces(...Array.from({ length }, () => 1));
  assert.equal((await bounded(many(1_000), 100_000))?.length, 1_000);
  assert.equal(await bounded(many(10_000), 100_000), undefined);
});
