import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { configSchema } from './config.ts';
import { keyId, presentable, readTrust, staleReason, type Trust } from './protocol.ts';

const TRUST_DOMAIN = '11111111-2222-3333-4444-555555555555.consul';
const ID = `spiffe://${TRUST_DOMAIN}/ns/default/dc/dc1/svc/ambassador`;
const HOUR = 3_600_000;
const config = configSchema.parse({ http: { address: 'http://c' } });

/**
 * certificates that Consul stores in any order are presented leaf first, each issuer after the certificate it issued
 */
function rotated() {
  const clock = new FakeClock();
  const old = SandboxCa.root({ name: 'old', clock, keyId: 'sha256' });
  const fresh = SandboxCa.root({ name: 'fresh', clock, keyId: 'sha256' });
  const signing = fresh.intermediate({ name: 'signing' });
  const bridge = old.crossSign(fresh, { notBefore: clock.now() - 60_000, notAfter: clock.now() + HOUR });
  const [leaf] = signing.identity({ uris: [ID], lifetimeMs: 24 * HOUR }).chain;
  assert.ok(leaf);
  const trust: Trust = {
    trustDomain: TRUST_DOMAIN,
    signingKeyId: signing.certificate.subjectKeyId ?? '',
    roots: [fresh.certificate, old.certificate],
    intermediates: [bridge, signing.certificate],
  };
  return { clock, old, fresh, signing, bridge, leaf, trust };
}

const subjects = (chain: readonly { subject: string }[]) => chain.map(({ subject }) => subject.replace('CN=', ''));

test('an expired intermediate is left out, even if it expires later', () => {
  const { clock, leaf, bridge, signing, trust } = rotated();
  const chain = presentable([leaf, bridge, signing.certificate], trust, clock.now());
  assert.deepEqual(chain, [leaf, signing.certificate, bridge]);
});

test('an intermediate that expired is left out, also later', () => {
  const { clock, leaf, bridge, signing, trust } = rotated();
  const received = [leaf, bridge, signing.certificate];
  assert.equal(presentable(received, trust, clock.now() + 2 * HOUR).length, 2);
  assert.deepEqual(subjects(presentable(received, trust, clock.now() + 2 * HOUR)), ['', 'signing']);
});

test('strangers, doubles and roots are left out', () => {
  const { clock, leaf, signing, fresh, trust } = rotated();
  const stranger = SandboxCa.root({ name: 'stranger', clock }).intermediate({ name: 'other' });
  const received = [leaf, stranger.certificate, signing.certificate, signing.certificate, fresh.certificate];
  assert.deepEqual(presentable(received, { ...trust, intermediates: [] }, clock.now()), [leaf, signing.certificate]);
});

test('a chain that came incomplete is completed from the roots answer', () => {
  const { clock, leaf, signing, trust } = rotated();
  const chain = presentable([leaf], { ...trust, roots: trust.roots.slice(0, 1) }, clock.now());
  assert.equal(chain[1]?.fingerprint, signing.certificate.fingerprint);
});

test('a leaf that the active signing key made is not stale', () => {
  const { clock, leaf, signing, trust } = rotated();
  assert.equal(staleReason(config, [leaf, signing.certificate], trust, clock.now()), undefined);
});

test('each reason to replace a leaf early is named', () => {
  const { clock, leaf, signing, bridge, trust } = rotated();
  const now = clock.now();
  const chain = [leaf, signing.certificate, bridge];
  assert.match(
    staleReason(config, chain, { ...trust, signingKeyId: 'aabb' }, now) ?? '',
    /active root signs with aabb/,
  );
  assert.match(staleReason(config, chain, trust, now + 2 * HOUR) ?? '', /intermediate CN=fresh expired/);
  assert.match(
    staleReason(config, chain, { ...trust, trustDomain: 'new.consul' }, now) ?? '',
    /Consul's is new\.consul/,
  );
  assert.match(staleReason({ ...config, service: 'edge' }, chain, trust, now) ?? '', /svc\/edge/);
  assert.match(staleReason({ ...config, datacenter: 'dc2' }, chain, trust, now) ?? '', /dc\/dc2/);
  assert.match(staleReason(config, [], trust, now) ?? '', /empty/);
});

test('key identifiers are compared without colons and case', () => {
  assert.equal(keyId('AA:bb:0C'), 'aabb0c');
});

const root = SandboxCa.root();
const raw = { active: true, signingKeyId: 'aa:bb', rootCert: root.certificate.pem.trimEnd(), intermediateCerts: [] };

test('the active root comes first and a root named twice counts once', () => {
  const other = { ...raw, active: false, rootCert: SandboxCa.root({ name: 'x' }).certificate.pem };
  const trust = readTrust('roots', 'ABC.consul', [other, raw, { ...raw, active: false }]);
  assert.equal(trust.trustDomain, 'abc.consul');
  assert.equal(trust.signingKeyId, 'aabb');
  assert.equal(trust.roots[0]?.fingerprint, root.certificate.fingerprint);
  assert.equal(trust.roots.length, 2);
});

const broken: [string, string, object[]][] = [
  ['no root', 'x.consul', []],
  ['no active root', 'x.consul', [{ ...raw, active: false }]],
  ['two active roots', 'x.consul', [raw, raw]],
  ['no trust domain', '', [raw]],
  ['a root that is no certificate', 'x.consul', [{ ...raw, rootCert: PrivateKey.generate().toPem() }]],
  ['an empty root', 'x.consul', [{ ...raw, rootCert: '' }]],
];
for (const [title, trustDomain, roots] of broken) {
  test(`${title} is a bad answer, not an empty bundle`, () => {
    assert.throws(() => readTrust('roots', trustDomain, roots as (typeof raw)[]), { code: 'ERR_MESH_BAD_RESPONSE' });
  });
}
