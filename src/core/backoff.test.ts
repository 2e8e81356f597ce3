import assert from 'node:assert/strict';
import { test } from 'node:test';
import { retryDelay } from './retry.ts';

const most = () => 1;

test('the ceiling doubles from two seconds to five minutes', () => {
  const ceilings = [1, 2, 3, 8, 9, 1000].map((attempt) => retryDelay(attempt, most));
  assert.deepEqual(ceilings, [2000, 4000, 8000, 256_000, 300_000, 300_000]);
});

test('the jitter is full and never spins', () => {
  assert.equal(
    retryDelay(5, () => 0),
    100,
  );
  assert.equal(
    retryDelay(5, () => 0.5),
    (100 + 32_000) / 2,
  );
});

test('no wait is longer than a tenth of the remaining life (cert-manager waits an hour)', () => {
  assert.equal(retryDelay(20, most, { remainingMs: 60_000 }), 6000);
  assert.equal(retryDelay(20, most, { remainingMs: 50 }), 100);
});

test('after the end it continues at a steady pace', () => {
  assert.equal(retryDelay(20, most, { remainingMs: 0 }), 30_000);
  assert.equal(retryDelay(20, most, { remainingMs: -1 }), 30_000);
  assert.equal(retryDelay(1, most, { remainingMs: 0 }), 2000);
});
