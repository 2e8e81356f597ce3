import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import { createCsr } from '../../src/pki/csr.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { CLIENT_AUTH, SandboxCa } from './ca.ts';
import { readCsr } from './csr.ts';

const DAY = 86_400_000;
const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';
const pem = (...certificates: readonly Certificate[]) => certificates.map((certificate) => certificate.pem).join('');

function openssl(args: string[], files: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), 'meshcert-ca-'));
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
    return execFileSync('openssl', args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function verifies(leaf: Certificate, untrusted: readonly Certificate[], roots: readonly Certificate[]): string {
  return openssl(
    ['verify', '-x509_strict', '-purpose', 'sslclient', '-CAfile', 'roots', '-untrusted', 'between', 'leaf'],
    // Without an intermediate, the leaf is used instead: the option needs a certificate.
    { roots: pem(...roots), between: pem(...(untrusted.length > 0 ? untrusted : [leaf])), leaf: leaf.pem },
  );
}

test('openssl verifies a leaf of an intermediate up to the root, strictly', () => {
  const root = SandboxCa.root({ organization: 'cluster.local' });
  const issuing = root.intermediate({ lifetimeMs: 30 * DAY });
  const { chain } = issuing.identity({ uris: [ID], lifetimeMs: DAY });
  assert.equal(chain.length, 2);
  assert.match(verifies(chain[0] as Certificate, chain.slice(1), [root.certificate]), /leaf: OK/);
});

test('the alternative name is critical exactly when the subject is empty', () => {
  const ca = SandboxCa.root();
  const bare = ca.issue(PrivateKey.generate(), { uris: [ID], lifetimeMs: DAY });
  const named = ca.issue(PrivateKey.generate(), { uris: [ID], commonName: 'web', lifetimeMs: DAY });
  const print = (certificate: Certificate) => openssl(['x509', '-noout', '-text', '-in', 'c'], { c: certificate.pem });
  assert.match(print(bare), /Subject Alternative Name: critical\n/);
  assert.match(print(named), /Subject Alternative Name: *\n/);
  assert.equal(bare.subject, '');
});

test('node reads every field back as it was requested', () => {
  const clock = new FakeClock(Date.parse('2048-06-01T00:00:00Z'));
  const ca = SandboxCa.root({ clock, name: 'Root of 2048', lifetimeMs: 3650 * DAY });
  const key = PrivateKey.generate();
  const leaf = ca.issue(key, {
    uris: [ID],
    dns: ['web.shop.svc'],
    ips: ['127.0.0.1', '::1'],
    emails: ['ops@example.test'],
    lifetimeMs: DAY,
    notBeforeSkewMs: 20_000,
    serial: 1n,
    eku: [CLIENT_AUTH],
  });
  const x509 = new X509Certificate(leaf.der);
  assert.equal(
    x509.subjectAltName,
    `URI:${ID}, DNS:web.shop.svc, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, email:ops@example.test`,
  );
  assert.equal(x509.serialNumber, '01');
  assert.deepEqual(leaf.extendedKeyUsage, [CLIENT_AUTH]);
  assert.equal(leaf.notBefore, clock.now() - 20_000);
  assert.equal(leaf.notAfter, clock.now() + DAY);
  assert.equal(leaf.issuer, 'CN=Root of 2048');
  assert.equal(leaf.authorityKeyId, ca.certificate.subjectKeyId);
  assert.equal(leaf.publicKeyFingerprint, key.publicKeyFingerprint);
  assert.equal(new Date(ca.certificate.notAfter).getUTCFullYear(), 2058);
  assert.ok(x509.checkIssued(new X509Certificate(ca.certificate.der)));
});

test('a root renewed with its key verifies the leaves of the old one, and the reverse', () => {
  const old = SandboxCa.root({ organization: 'cluster.local' });
  const renewed = old.renew();
  assert.notEqual(old.certificate.fingerprint, renewed.certificate.fingerprint);
  const [before, after] = [old, renewed].map((ca) => ca.issue(PrivateKey.generate(), { uris: [ID], lifetimeMs: DAY }));
  assert.match(verifies(before as Certificate, [], [renewed.certificate]), /OK/);
  assert.match(verifies(after as Certificate, [], [old.certificate]), /OK/);
});

test('a client that trusts only the old root verifies a leaf of the new one through the cross-signed certificate', () => {
  const old = SandboxCa.root({ name: 'old' });
  const next = SandboxCa.root({ name: 'next' });
  const bridge = old.crossSign(next, { lifetimeMs: 7 * DAY });
  const { chain } = next.identity({ uris: [ID], lifetimeMs: DAY });
  const leaf = chain[0] as Certificate;
  assert.match(verifies(leaf, [bridge], [old.certificate]), /OK/);
  assert.throws(() => verifies(leaf, [], [old.certificate]), /unable to get local issuer certificate/);
  assert.equal(findPath(leaf, [bridge], [old.certificate], Date.now()).ok, true);
});

test('a chain through an intermediate that was cross-signed reaches both roots', () => {
  const old = SandboxCa.root({ name: 'old' });
  const next = SandboxCa.root({ name: 'next' });
  const issuing = next.intermediate();
  const { chain } = issuing.identity({ uris: [ID], lifetimeMs: DAY });
  const [leaf, ...between] = chain as [Certificate, ...Certificate[]];
  assert.match(verifies(leaf, [...between, old.crossSign(next)], [old.certificate]), /OK/);
  assert.match(verifies(leaf, between, [next.certificate]), /OK/);
});

test('an RSA authority signs with RSA', () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ca = SandboxCa.root({ key: PrivateKey.fromKeyObject(privateKey) });
  const leaf = ca.issue(PrivateKey.generate(), { uris: [ID], lifetimeMs: DAY });
  assert.match(verifies(leaf, [], [ca.certificate]), /OK/);
  assert.match(openssl(['x509', '-noout', '-text', '-in', 'c'], { c: leaf.pem }), /sha256WithRSAEncryption/);
});

test("Consul's key identifiers are the SHA-256 of the public key", () => {
  const ca = SandboxCa.root({ keyId: 'sha256' });
  const leaf = ca.issue(PrivateKey.generate(), { uris: [ID], lifetimeMs: DAY });
  assert.equal(leaf.subjectKeyId, leaf.publicKeyFingerprint);
  assert.equal(leaf.authorityKeyId, ca.certificate.publicKeyFingerprint);
});

test("Linkerd's leaves have neither basic constraints nor a subject key identifier", () => {
  const ca = SandboxCa.root();
  const leaf = ca.issue(PrivateKey.generate(), { dns: ['web.shop.serviceaccount'], lifetimeMs: DAY, bare: true });
  const printed = openssl(['x509', '-noout', '-text', '-in', 'c'], { c: leaf.pem });
  assert.doesNotMatch(printed, /Basic Constraints|Subject Key Identifier/);
  assert.match(verifies(leaf, [], [ca.certificate]), /OK/);
});

test('a request is read with its names, its key and its proof of possession', () => {
  const key = PrivateKey.generate();
  const csr = readCsr(createCsr(key, { uris: [ID] }));
  assert.deepEqual(csr.names.uris, [ID]);
  assert.equal(csr.emptySubject, true);
  assert.equal(csr.signatureValid, true);
  const leaf = SandboxCa.root().issue(csr.publicKey, { uris: csr.names.uris, lifetimeMs: DAY });
  assert.equal(leaf.publicKeyFingerprint, key.publicKeyFingerprint);
});

test('a request that openssl made is read, and a forged one is detected', () => {
  const key = PrivateKey.generate();
  const made = openssl(['req', '-new', '-key', 'key', '-subj', '/CN=web', '-addext', 'subjectAltName=DNS:web.shop'], {
    key: key.toPem(),
  });
  const csr = readCsr(made);
  assert.equal(csr.commonName, 'web');
  assert.deepEqual(csr.names.dns, ['web.shop']);
  assert.equal(csr.signatureValid, true);

  const der = createCsr(key, { dns: ['web.shop'] });
  const forged = Buffer.from(der.toString('latin1').replace('web.shop', 'web.shap'), 'latin1');
  assert.equal(readCsr(formatPem('CERTIFICATE REQUEST', forged)).signatureValid, false);
});
