import assert from 'node:assert/strict';
import { it } from 'node:test';
import { SharedParts } from './shared-parts.ts';

const object = (status: object | undefined) => ({ apiVersion: 'v1', kind: 'Any', metadata: { name: 'one' }, status });
const status = (reason: string) => ({
  mesh: 'istio',
  conditions: [{ type: 'Ready', status: 'True', reason, observedGeneration: 1 }],
  roots: [{ fingerprint: 'ab', state: 'named' }],
});

type Said = ReturnType<typeof status>;

it('gives equal parts of two statuses as the same objects, and changes nothing that they say', () => {
  const shared = new SharedParts();
  const one = shared.of(object(status('Serving')));
  const two = shared.of(object(status('Serving')));
  const other = shared.of(object(status('Paused')));
  assert.deepEqual(one, object(status('Serving')));
  assert.deepEqual(other, object(status('Paused')));
  const parts = ({ status }: typeof one) => status as Said;
  assert.equal(parts(one).conditions[0], parts(two).conditions[0]);
  assert.equal(parts(one).roots[0], parts(other).roots[0]);
  assert.notEqual(parts(one).conditions[0], parts(other).conditions[0]);
});

it('leaves a status that is none of ours as it is, and forgets rather than grows', () => {
  const shared = new SharedParts();
  for (const foreign of [undefined, {}, { conditions: 'none', roots: [] }]) {
    const given = object(foreign);
    assert.equal(shared.of(given), given);
  }
  assert.deepEqual(shared.of(object({ conditions: [null, 'text'], roots: [] })).status, {
    conditions: [null, 'text'],
    roots: [],
  });
  for (let n = 0; n < 1000; n += 1) {
    assert.deepEqual(shared.of(object(status(`R${n}`))), object(status(`R${n}`)));
  }
});
