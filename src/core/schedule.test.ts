import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emergencyAt, lifetimeOf, renewAt } from './schedule.ts';

const leaf = (fingerprint: string) => ({ notBefore: 0, notAfter: 1000, fingerprint });

test('the renewal time spans the band from its lower end up', () => {
  assert.equal(renewAt(leaf('0'.repeat(64))), 600);
  assert.equal(renewAt(leaf('8'.padEnd(64, '0'))), 630);
  assert.equal(renewAt(leaf('f'.repeat(64))), 660);
  assert.equal(renewAt(leaf('f'.repeat(64)), 0.5, 0), 500);
});

test('the emergency is the last tenth', () => {
  assert.equal(emergencyAt(leaf('00')), 900);
});

test('a path lives no longer than its shortest link', () => {
  const life = lifetimeOf([leaf('aa'), { notBefore: -500, notAfter: 700, fingerprint: 'bb' }]);
  assert.deepEqual(life, { notBefore: 0, notAfter: 700, fingerprint: 'aa' });
});

test('a leaf that ends before it begins is due at once', () => {
  assert.equal(renewAt({ notBefore: 100, notAfter: 50, fingerprint: 'ff' }), 100);
});
