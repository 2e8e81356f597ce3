import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Certificate } from './certificate.ts';
import { findPath, orderChain } from './chain.ts';
import { PrivateKey } from './key.ts';

const now = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const valid = { notBefore: now - hour, notAfter: now + hour };
const key = PrivateKey.generate();
const root = SandboxCa.root({ name: 'root', ...valid });
const outer = root.intermediate({ name: 'outer', ...valid });
const inner = outer.intermediate({ name: 'inner', ...valid });
const leaf = inner.issue(key, { uris: ['spiffe://td/a'], ...valid });
const stranger = SandboxCa.root({ name: 'stranger', ...valid });

const names = (certificates: readonly Certificate[]) => certificates.map(({ subject }) => subject || 'leaf');
const pathOf = (...given: Parameters<typeof findPath>) => {
  const found = findPath(...given);
  return found.ok ? names(found.path) : `${found.reason} at ${found.at.subject || 'leaf'}`;
};

describe('a path', () => {
  test('goes from the leaf to a root whatever the order of the links', () => {
    const whole = ['leaf', 'CN=inner', 'CN=outer', 'CN=root'];
    assert.deepEqual(
      pathOf(leaf, [inner.certificate, outer.certificate], [stranger.certificate, root.certificate], now),
      whole,
    );
    assert.deepEqual(
      pathOf(leaf, [outer.certificate, stranger.certificate, inner.certificate], [root.certificate], now),
      whole,
    );
  });

  test('ends at the first trusted certificate, self-signed or not', () => {
    assert.deepEqual(pathOf(leaf, [inner.certificate], [outer.certificate], now), ['leaf', 'CN=inner', 'CN=outer']);
  });

  test('is not found without the links between', () => {
    assert.equal(pathOf(leaf, [inner.certificate], [root.certificate], now), 'no_root at CN=inner');
    assert.equal(pathOf(leaf, [], [root.certificate], now), 'no_issuer at leaf');
    assert.equal(pathOf(leaf, [inner.certificate, outer.certificate], [], now), 'no_root at CN=outer');
    assert.equal(
      pathOf(leaf, [inner.certificate, outer.certificate], [stranger.certificate], now),
      'no_root at CN=outer',
    );
  });

  test('does not use a link that has expired or is not valid yet', () => {
    const old = SandboxCa.root({ name: 'root', notBefore: now - 2 * hour, notAfter: now - hour });
    const oldLeaf = old.issue(key, { uris: ['spiffe://td/a'], ...valid });
    assert.equal(pathOf(oldLeaf, [], [old.certificate], now), 'expired_link at CN=root');
    const early = SandboxCa.root({ name: 'root', notBefore: now + 10_000, notAfter: now + hour });
    const earlyLeaf = early.issue(key, { uris: ['spiffe://td/a'], ...valid });
    assert.equal(pathOf(earlyLeaf, [], [early.certificate], now), 'not_yet_valid_link at CN=root');
    assert.deepEqual(pathOf(earlyLeaf, [], [early.certificate], now, 10_000), ['leaf', 'CN=root']);
  });

  test('is found over the cross-signed link when the direct one has expired', () => {
    const successor = SandboxCa.root({ name: 'successor', ...valid });
    const old = SandboxCa.root({ name: 'old', notBefore: now - 2 * hour, notAfter: now - hour });
    const crossed = successor.crossSign(old, valid);
    const under = old.issue(key, { uris: ['spiffe://td/a'], ...valid });
    assert.deepEqual(pathOf(under, [crossed], [old.certificate, successor.certificate], now), [
      'leaf',
      'CN=old',
      'CN=successor',
    ]);
  });

  test('is found within a bounded effort among many roots of one name (spire issue 4415)', () => {
    const impostors = Array.from({ length: 63 }, () => SandboxCa.root({ name: 'root', ...valid }).certificate);
    const links = [inner.certificate, outer.certificate];
    assert.equal(findPath(leaf, links, [...impostors, root.certificate], now).ok, true);
    const crowd = Array.from({ length: 2000 }, (_, at) => impostors[at % impostors.length] ?? root.certificate);
    assert.equal(findPath(leaf, links, crowd, now).ok, false);
  });

  test('does not loop between two certificates that signed each other', () => {
    const a = SandboxCa.root({ name: 'a', ...valid });
    const b = SandboxCa.root({ name: 'b', ...valid });
    const under = a.issue(key, { uris: ['spiffe://td/a'], ...valid });
    const links = [b.crossSign(a, valid), a.crossSign(b, valid)];
    assert.equal(pathOf(under, links, [stranger.certificate], now), 'no_root at CN=b');
  });
});

describe('ordering a chain', () => {
  test('puts the leaf first and drops roots and duplicates', () => {
    const mixed = [root.certificate, outer.certificate, leaf, inner.certificate, outer.certificate];
    assert.deepEqual(names(orderChain(mixed)), ['leaf', 'CN=inner', 'CN=outer']);
  });

  test('keeps unrelated certificates at the end, for a later check to name', () => {
    const other = stranger.intermediate({ name: 'other', ...valid });
    assert.deepEqual(names(orderChain([other.certificate, leaf, inner.certificate])), ['leaf', 'CN=inner', 'CN=other']);
  });

  test('begins with the lowest certificate if there is no leaf, and is empty for no input', () => {
    assert.deepEqual(names(orderChain([outer.certificate, inner.certificate])), ['CN=inner', 'CN=outer']);
    assert.deepEqual(orderChain([]), []);
    assert.deepEqual(orderChain([root.certificate]), []);
  });
});
