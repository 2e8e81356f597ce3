import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatSpiffeId, parseSpiffeId } from './names.ts';

test('the ids of Istio, SPIRE and Consul are read and written back', () => {
  for (const text of [
    'spiffe://cluster.local/ns/emissary/sa/emissary',
    'spiffe://example.org',
    'spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web',
    'spiffe://td_1/A/b-c/D.e/_',
  ]) {
    const id = parseSpiffeId(text);
    assert.ok(id, text);
    assert.equal(formatSpiffeId(id), text);
  }
  assert.deepEqual(parseSpiffeId('spiffe://td/a/b'), { trustDomain: 'td', path: '/a/b' });
});

test('what only looks like an id is not one', () => {
  for (const text of [
    '',
    'spiffe://',
    'spiffe:///ns/a',
    'SPIFFE://td/a',
    'https://td/a',
    'spiffe://TD/a',
    'spiffe://td/',
    'spiffe://td//a',
    'spiffe://td/a/',
    'spiffe://td/./a',
    'spiffe://td/a/..',
    'spiffe://td/a?x=1',
    'spiffe://td/a#x',
    'spiffe://td:80/a',
    'spiffe://user@td/a',
    'spiffe://td/a%20b',
    'spiffe://td/a b',
    ' spiffe://td/a',
    'spiffe://td/a\n',
    `spiffe://${'t'.repeat(256)}/a`,
    `spiffe://td/${'a'.repeat(2048)}`,
  ]) {
    assert.equal(parseSpiffeId(text), undefined, JSON.stringify(text.slice(0, 60)));
  }
});
