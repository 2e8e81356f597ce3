import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { pathCases } from '../../test/support/path-cases.ts';
import { systemClock } from '../async/clock.ts';
import type { Presented } from '../core/preflight.ts';
import type { Certificate } from '../pki/certificate.ts';
import { Crl } from '../pki/crl.ts';
import { PrivateKey } from '../pki/key.ts';
import { opensslPreflight } from './preflight.ts';

const now = Date.now();
const period = { notBefore: now - 3_600_000, notAfter: now + 3_600_000 };
const id = 'spiffe://td/ns/emissary/sa/gateway';
const key = PrivateKey.generate();
const root = SandboxCa.root({ name: 'root', ...period });
const middle = root.intermediate({ name: 'middle', ...period });
const pair: Presented = { key, chain: [middle.issue(key, { uris: [id], ...period }), middle.certificate] };
const bundle = [root.certificate];
const preflight = opensslPreflight();
const strangers = (count: number): Certificate[] =>
  Array.from({ length: count }, () => SandboxCa.root({ name: 'root', ...period }).certificate);

const reasonOf = async (presented: Presented, roots: readonly Certificate[]) => {
  const verdict = await preflight(presented, roots);
  return verdict.ok ? undefined : `${verdict.code} ${verdict.message}`;
};

test('a good pair is accepted under its bundle', async () => {
  assert.deepEqual(await preflight(pair, bundle), { ok: true });
});

test('a good pair is accepted under a bundle of 64 roots of one name, wherever its own root is', async () => {
  for (const at of [0, 31, 63]) {
    const roots = strangers(63);
    roots.splice(at, 0, root.certificate);
    assert.deepEqual(await preflight(pair, roots), { ok: true });
  }
  assert.match((await reasonOf(pair, strangers(64))) ?? '', /^ERR_VERIFY_PREFLIGHT /);
});

test('an intermediate is a trust anchor, with the root behind it or without', async () => {
  assert.deepEqual(await preflight(pair, [middle.certificate]), { ok: true });
  assert.deepEqual(await preflight({ key, chain: pair.chain.slice(0, 1) }, [middle.certificate]), { ok: true });
});

describe('a pair is refused', () => {
  const { refused } = pathCases(id, period);
  for (const { name, pair: flawed, bundle: roots, refusedBy } of refused) {
    if (refusedBy) continue;
    test(`for ${name}, with OpenSSL's message`, async () => {
      const { key: own, chain } = flawed;
      assert.ok(own);
      assert.match((await reasonOf({ key: own, chain }, roots)) ?? '', /^ERR_VERIFY_PREFLIGHT .*bundle: \w+/);
    });
  }

  test('with the key of another pair', async () => {
    const other = { ...pair, key: PrivateKey.generate() };
    assert.match((await reasonOf(other, bundle)) ?? '', /^ERR_VERIFY_PREFLIGHT .*key values mismatch/);
  });

  test('under the bundle of another mesh, even after it was accepted under its own', async () => {
    assert.match((await reasonOf(pair, strangers(1))) ?? '', /^ERR_VERIFY_PREFLIGHT .*UNABLE_TO/);
    assert.deepEqual(await preflight(pair, bundle), { ok: true });
  });

  test('under an empty bundle and without a chain', async () => {
    assert.match((await reasonOf(pair, [])) ?? '', /^ERR_VERIFY_PREFLIGHT/);
    assert.match((await reasonOf({ key, chain: [] }, bundle)) ?? '', /^ERR_VERIFY_PREFLIGHT/);
  });

  test('after it has expired by the real time', async () => {
    const over = middle.issue(key, { uris: [id], notBefore: now - 7_200_000, notAfter: now - 3_600_000 });
    const expired = { key, chain: [over, middle.certificate] };
    assert.match((await reasonOf(expired, bundle)) ?? '', /certificate has expired/);
  });
});

test('a handshake that does not end in time is a refusal with its own code', async () => {
  const clock = { ...systemClock, sleep: async () => {} };
  const verdict = await opensslPreflight({ clock, timeoutMs: 10_000 })(pair, bundle);
  assert.ok(!verdict.ok);
  assert.equal(verdict.code, 'ERR_VERIFY_PREFLIGHT_FAILED');
  assert.match(verdict.message, /did not end within 10 s/);
});

test('a handshake that cannot be made is a refusal with its own code', async () => {
  const unreadable = {
    fingerprint: 'x',
    get pem(): string {
      throw new Error('the bundle cannot be read');
    },
  } as unknown as Certificate;
  assert.match((await reasonOf(pair, [unreadable])) ?? '', /^ERR_VERIFY_PREFLIGHT_FAILED/);
});

test('many concurrent handshakes, under more bundles than are cached, each get their own verdict', async () => {
  const rounds = Array.from({ length: 30 }, (_, at) => {
    const other = strangers(1);
    return at % 2 === 0 ? preflight(pair, [...other, root.certificate]) : preflight(pair, other);
  });
  const verdicts = await Promise.all(rounds);
  assert.deepEqual(
    verdicts.map(({ ok }) => ok),
    verdicts.map((_, at) => at % 2 === 0),
  );
});

describe('with CRLs, OpenSSL', () => {
  const crl = (ca: SandboxCa, options: Parameters<SandboxCa['crl']>[0] = {}) => Crl.fromDer(ca.crl(options));
  const reasonWith = async (...crls: readonly Crl[]) => {
    const verdict = await preflight(pair, bundle, crls);
    return verdict.ok ? 'accepted' : verdict.message;
  };
  const [leaf] = pair.chain;

  test('accepts a pair whose authorities all have a current one', async () => {
    assert.equal(await reasonWith(crl(middle), crl(root)), 'accepted');
  });

  test('refuses a pair when one authority has none', async () => {
    assert.match(await reasonWith(crl(middle)), /UNABLE_TO_GET_CRL/);
    assert.match(await reasonWith(crl(root)), /UNABLE_TO_GET_CRL/);
  });

  test('refuses a pair by an expired one, by one that another key signed, and by one that revokes it', async () => {
    const expired = crl(root, { thisUpdate: now - 7_200_000, nextUpdate: now - 3_600_000 });
    assert.match(await reasonWith(crl(middle), expired), /CRL_HAS_EXPIRED/);
    const forged = crl(SandboxCa.root({ name: 'root', ...period }));
    assert.match(await reasonWith(crl(middle), forged), /UNABLE_TO_GET_CRL|CRL_SIGNATURE_FAILURE|CRL/);
    assert.match(await reasonWith(crl(middle, { revoked: leaf ? [leaf] : [] }), crl(root)), /CERT_REVOKED/);
  });

  test('goes by no CRL that an earlier handshake had', async () => {
    assert.deepEqual(await preflight(pair, bundle), { ok: true });
  });
});
