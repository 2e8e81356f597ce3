import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { LABELS, makeCase } from './cases.ts';

const NOW = Date.UTC(2026, 0, 1);

test('each variation has its own label, and a sample of them changes a good pair into something', () => {
  assert.equal(new Set(LABELS).size, LABELS.length);
  for (const label of LABELS.filter((_, n) => n % 12 === 0))
    assert.ok(makeCase(1, NOW, [label]).chain.startsWith('-----BEGIN CERTIFICATE-----'));
});

test('a seed makes the same names, keys and dates again', () => {
  const summary = ({ chain, labels, key }: ReturnType<typeof makeCase>) => {
    const { subject, validFrom, serialNumber } = new X509Certificate(chain);
    return { labels, key, subject, validFrom, serialNumber };
  };
  const labels = ['subject with two common names @leaf', 'serial of 20 bytes @leaf'];
  assert.deepEqual(summary(makeCase(7, NOW, labels)), summary(makeCase(7, NOW, labels)));
  assert.deepEqual(makeCase(7, NOW).labels, makeCase(7, NOW).labels);
});
