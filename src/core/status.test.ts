import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setConditions, toRfc3339 } from './status.ts';

test('a transition time changes with the status and not with reason or message', () => {
  const ready = { type: 'Ready', status: 'True', reason: 'InForce', message: 'ok' } as const;
  const first = setConditions([], [ready], 1000);
  const second = setConditions(first, [{ ...ready, message: 'still ok' }], 2000);
  assert.equal(second[0]?.lastTransitionTime, '1970-01-01T00:00:01Z');
  assert.equal(second[0]?.message, 'still ok');
  const third = setConditions(second, [{ ...ready, status: 'False' }], 3000);
  assert.equal(third[0]?.lastTransitionTime, '1970-01-01T00:00:03Z');
});

test('conditions keep one order, whenever each was set', () => {
  const base = { status: 'True', reason: 'R', message: '' } as const;
  const all = setConditions(setConditions([], [{ ...base, type: 'Degraded' }], 0), [{ ...base, type: 'Ready' }], 0);
  assert.deepEqual(
    all.map(({ type }) => type),
    ['Ready', 'Degraded'],
  );
});

test('times are whole seconds', () => {
  assert.equal(toRfc3339(Date.UTC(2026, 0, 1) + 999), '2026-01-01T00:00:00Z');
});
