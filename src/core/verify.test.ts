import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { openssl, withFiles } from '../../test/property/openssl.ts';
import { pathCases } from '../../test/support/path-cases.ts';
import { type Certificate, formatCertificates } from '../pki/certificate.ts';

import { PrivateKey } from '../pki/key.ts';
import { type ExpectedIdentity, LIMITS, type PresentedPair } from './checks.ts';

import { CHECKS, examine, VERIFY_CODES, type VerifyCode, verify } from './verify.ts';

const now = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const valid = { notBefore: now - hour, notAfter: now + hour };
const id = 'spiffe://td/ns/emissary/sa/gateway';
const key = PrivateKey.generate();
const root = SandboxCa.root({ name: 'root', ...valid });
const middle = root.intermediate({ name: 'middle', ...valid });
const leaf = middle.issue(key, { uris: [id], ...valid });
const chain = [leaf, middle.certificate];
const bundle = [root.certificate];
const expected: ExpectedIdentity = { form: 'spiffe', id, trustDomain: 'td' };

const issue = (options: Parameters<SandboxCa['issue']>[1], k: PrivateKey = key): PresentedPair => ({
  key: k,
  chain: [middle.issue(k, { uris: [id], ...valid, ...options }), middle.certificate],
});

test('a good pair passes and shows its path to the root', () => {
  const verdict = verify({ key, chain }, bundle, expected, now);
  assert.ok(verdict.ok);
  assert.deepEqual(verdict.path, [leaf, middle.certificate, root.certificate]);
  assert.ok(examine({ key, chain }, bundle, expected, now).every(({ outcome }) => outcome === 'ok'));
});

test('a root inside the chain does no harm', () => {
  assert.equal(verify({ key, chain: [...chain, root.certificate] }, bundle, expected, now).ok, true);
});

interface Case {
  readonly code: VerifyCode;
  readonly name: string;
  readonly pair: PresentedPair;
  readonly bundle?: readonly Certificate[];
  readonly expected?: ExpectedIdentity;
  readonly now?: number;
}

const old = SandboxCa.root({ name: 'old', notBefore: now - 2 * hour, notAfter: now - 1 });
const stranger = SandboxCa.root({ name: 'root', ...valid });
const rsa = (modulusLength: number) =>
  PrivateKey.fromKeyObject(generateKeyPairSync('rsa', { modulusLength }).privateKey);
const onCurve = (namedCurve: string) => PrivateKey.fromKeyObject(generateKeyPairSync('ec', { namedCurve }).privateKey);
const large = Array.from({ length: 25 }, (_, at) => `spiffe://td/${at}/${'x'.repeat(2000)}`);

const profile = { ca: false, keyUsage: ['digitalSignature'] } as const;
const selfIssued = SandboxCa.root({ name: 'self', uris: [id], key, profile, ...valid }).certificate;
const ofOneKey = root.intermediate({ name: 'middle', key, ...valid });

const cases: Case[] = [
  { code: 'ERR_VERIFY_EMPTY_CHAIN', name: 'an empty chain', pair: { key, chain: [] } },
  { code: 'ERR_VERIFY_EMPTY_BUNDLE', name: 'an empty bundle', pair: { key, chain }, bundle: [] },
  {
    code: 'ERR_VERIFY_TOO_MANY',
    name: 'a chain of more links than any mesh has',
    pair: { key, chain: [leaf, ...Array.from({ length: LIMITS.chain }, () => middle.certificate)] },
  },
  {
    code: 'ERR_VERIFY_TOO_MANY',
    name: 'more roots than a Secret should carry',
    pair: { key, chain },
    bundle: Array.from({ length: LIMITS.bundle + 1 }, () => root.certificate),
  },
  { code: 'ERR_VERIFY_TOO_LARGE', name: 'a leaf of fifty kilobytes', pair: issue({ uris: large }) },
  {
    code: 'ERR_VERIFY_TOO_LARGE',
    name: 'roots of too many bytes',
    pair: { key, chain },
    bundle: [root.certificate, ...Array.from({ length: 4 }, () => SandboxCa.root({ uris: large }).certificate)],
  },
  { code: 'ERR_VERIFY_KEY_TYPE', name: 'a curve that BoringSSL lacks', pair: issue({}, onCurve('secp256k1')) },
  { code: 'ERR_VERIFY_KEY_TYPE', name: 'an RSA key of 1024 bits', pair: issue({}, rsa(1024)) },
  { code: 'ERR_VERIFY_KEY_MISMATCH', name: 'the key of another pair', pair: { key: PrivateKey.generate(), chain } },
  { code: 'ERR_VERIFY_KEY_MISMATCH', name: 'no key', pair: { key: undefined, chain } },
  { code: 'ERR_VERIFY_EXPIRED', name: 'a leaf whose last moment has come', pair: issue({ notAfter: now }) },
  {
    code: 'ERR_VERIFY_NOT_YET_VALID',
    name: 'a leaf from a clock a minute ahead',
    pair: issue({ notBefore: now + 60_000 }),
  },
  { code: 'ERR_VERIFY_SAN_FORM', name: 'no URI name', pair: issue({ uris: [], dns: ['a.b'] }) },
  { code: 'ERR_VERIFY_SAN_FORM', name: 'two URI names', pair: issue({ uris: [id, `${id}2`] }) },
  { code: 'ERR_VERIFY_SAN_FORM', name: 'a URI that is no SPIFFE ID', pair: issue({ uris: ['https://td/a'] }) },
  {
    code: 'ERR_VERIFY_SAN_FORM',
    name: 'no DNS name where the mesh goes by them',
    pair: { key, chain },
    expected: { form: 'dns' },
  },
  { code: 'ERR_VERIFY_ID', name: 'the identity of somebody else', pair: issue({ uris: ['spiffe://td/ns/x/sa/y'] }) },
  {
    code: 'ERR_VERIFY_ID',
    name: 'the DNS name of somebody else',
    pair: issue({ uris: [], dns: ['other.example'] }),
    expected: { form: 'dns', id: 'web.example' },
  },
  {
    code: 'ERR_VERIFY_TRUST_DOMAIN',
    name: 'another trust domain',
    pair: issue({ uris: ['spiffe://other/a'] }),
    expected: { form: 'spiffe', trustDomain: 'td' },
  },
  {
    code: 'ERR_VERIFY_TRUST_DOMAIN',
    name: 'a DNS name that only ends alike',
    pair: issue({ uris: [], dns: ['web.notmesh.local'] }),
    expected: { form: 'dns', trustDomain: 'mesh.local' },
  },
  { code: 'ERR_VERIFY_EKU', name: 'a leaf for servers only', pair: issue({ eku: ['1.3.6.1.5.5.7.3.1'] }) },
  {
    code: 'ERR_VERIFY_LEAF_KEY',
    name: 'a leaf that is its own issuer',
    pair: { key, chain: [selfIssued] },
    bundle: [selfIssued],
  },
  {
    code: 'ERR_VERIFY_LEAF_KEY',
    name: 'a leaf with the key of its CA',
    pair: { key, chain: [ofOneKey.issue(key, { uris: [id], ...valid }), ofOneKey.certificate] },
  },
  { code: 'ERR_VERIFY_CHAIN_ORDER', name: 'a CA in front', pair: { key, chain: [middle.certificate, leaf] } },
  {
    code: 'ERR_VERIFY_CHAIN_ORDER',
    name: 'a link that issued nothing',
    pair: { key, chain: [leaf, middle.certificate, stranger.certificate] },
  },
  {
    code: 'ERR_VERIFY_CHAIN_ORDER',
    name: 'links upside down',
    pair: (() => {
      const deep = middle.intermediate({ name: 'deep', ...valid });
      return { key, chain: [deep.issue(key, { uris: [id], ...valid }), middle.certificate, deep.certificate] };
    })(),
  },
  { code: 'ERR_VERIFY_CHAIN_INCOMPLETE', name: 'a missing intermediate', pair: { key, chain: [leaf] } },
  {
    code: 'ERR_VERIFY_CHAIN_INCOMPLETE',
    name: 'a root of the same name and another key',
    pair: { key, chain },
    bundle: [stranger.certificate],
  },
  {
    code: 'ERR_VERIFY_LINK_EXPIRED',
    name: 'an issuer that went on signing after its end (linkerd2 issue 3676)',
    pair: { key, chain: [old.issue(key, { uris: [id], ...valid })] },
    bundle: [old.certificate],
  },
];

const paths = pathCases(id, valid);

describe('a pair is refused with', () => {
  for (const { name, code, pair, ...rest } of cases) {
    test(`${name}: ${code}`, () => {
      const given = [rest.bundle ?? bundle, rest.expected ?? expected, rest.now ?? now] as const;
      if (code === 'ERR_VERIFY_CHAIN_ORDER' && name === 'a CA in front') {
        const caKey = { ...pair, key: undefined };
        const found = examine(caKey, given[0], { ...given[1], keyless: true }, given[2]);
        assert.equal(found.find((one) => one.code === code)?.outcome, 'failed');
        return;
      }
      const verdict = verify(pair, ...given);
      assert.ok(!verdict.ok);
      assert.equal(verdict.code, code, verdict.message);
      assert.ok(verdict.message.length > 20);
    });
  }

  test('and every code above is reached by some case', () => {
    const reached = [...cases, ...paths.refused].map(({ code }) => code);
    assert.deepEqual([...new Set(reached)].sort(), [...VERIFY_CODES].sort());
    assert.deepEqual(
      CHECKS.map(({ code }) => code),
      VERIFY_CODES,
    );
  });
});

describe('a pair passes with', () => {
  const good: [string, PresentedPair, ExpectedIdentity?][] = [
    ['no extended key usage at all', issue({ eku: [] })],
    ['an RSA key of 2048 bits', issue({}, rsa(2048))],
    ['a P-384 key', issue({}, onCurve('secp384r1'))],
    ['a leaf from a clock slightly ahead', issue({ notBefore: now + 20_000 })],
    [
      'a DNS name in its trust domain',
      issue({ uris: [], dns: ['web.mesh.local'] }),
      { form: 'dns', trustDomain: 'mesh.local' },
    ],
    ['DNS names beside the SPIFFE ID, as Consul has them', issue({ dns: ['web.service.consul'] })],
  ];
  for (const [name, pair, wanted] of good) {
    test(name, () => {
      const verdict = verify(pair, bundle, wanted ?? expected, now);
      assert.ok(verdict.ok, verdict.ok ? '' : verdict.message);
    });
  }
});

test('examine reports every finding, and skips checks that have no input', () => {
  const findings = examine({ key, chain: [] }, [], expected, now);
  assert.deepEqual(
    findings.filter(({ outcome }) => outcome === 'failed').map(({ code }) => code),
    ['ERR_VERIFY_EMPTY_CHAIN', 'ERR_VERIFY_EMPTY_BUNDLE'],
  );
  assert.equal(findings.length, VERIFY_CODES.length);
  const keyless = examine({ key: undefined, chain }, bundle, { ...expected, keyless: true }, now);
  assert.equal(keyless.find(({ code }) => code === 'ERR_VERIFY_KEY_MISMATCH')?.outcome, 'skipped');
});

describe('from the content of its certificates', () => {
  for (const { name, code, pair, bundle: roots, refusedBy } of paths.refused) {
    test(`a pair is refused for ${name}, by us with ${code} and by ${refusedBy ?? 'OpenSSL'}`, () => {
      const verdict = verify(pair, roots, expected, now);
      assert.ok(!verdict.ok);
      assert.equal(verdict.code, code, verdict.message);
      assert.ok(verdict.message.length > 20);
      const theirs = opensslVerifies(pair, roots);
      assert.equal(theirs.ok, refusedBy !== undefined, theirs.output);
    });
  }

  for (const { name, pair, bundle: roots, refusedBy } of paths.accepted) {
    test(`a pair is accepted with ${name}`, () => {
      const verdict = verify(pair, roots, expected, now);
      assert.ok(verdict.ok, verdict.ok ? '' : `${verdict.code}: ${verdict.message}`);
      const theirs = opensslVerifies(pair, roots);
      assert.equal(theirs.ok, refusedBy === undefined, theirs.output);
    });
  }
});

/** The result of the openssl command for the same chain and roots, for a client certificate. */
function opensslVerifies({ chain: [first, ...links] }: PresentedPair, roots: readonly Certificate[]) {
  const files = { leaf: first?.pem ?? '', links: formatCertificates(links), roots: formatCertificates(roots) };
  return withFiles(files, (path) =>
    openssl([
      ...['verify', '-partial_chain', '-purpose', 'sslclient', '-attime', String(now / 1000)],
      ...['-no-CApath', '-no-CAstore', '-CAfile', path('roots')],
      ...['-untrusted', path(links.length > 0 ? 'links' : 'roots'), path('leaf')],
    ]),
  );
}
