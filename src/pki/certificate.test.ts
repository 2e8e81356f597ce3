import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { encodeCertificate } from '../../sandbox/tls/x509.ts';
import { Certificate, formatCertificates, parseCertificates } from './certificate.ts';
import { formatPem } from './der.ts';
import { PrivateKey } from './key.ts';

const root = SandboxCa.root({ name: 'root' });
const middle = root.intermediate({ name: 'middle' });
const key = PrivateKey.generate();
const leaf = middle.issue(key, {
  uris: ['spiffe://td/a'],
  notBefore: Date.UTC(2026, 0, 1),
  notAfter: Date.UTC(2060, 0, 1),
});

test('the facts of a leaf are read from its bytes', () => {
  assert.deepEqual(leaf.names.uris, ['spiffe://td/a']);
  assert.equal(leaf.notBefore, Date.UTC(2026, 0, 1));
  assert.equal(leaf.notAfter, Date.UTC(2060, 0, 1));
  assert.equal(leaf.issuer, 'CN=middle');
  assert.equal(leaf.subject, '');
  assert.equal(leaf.isCa, false);
  assert.equal(leaf.selfSigned, false);
  assert.equal(leaf.authorityKeyId, middle.certificate.subjectKeyId);
  assert.deepEqual(leaf.extendedKeyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
  assert.equal(leaf.publicKeyFingerprint, key.publicKeyFingerprint);
});

test('the facts of a root are read from its bytes', () => {
  const { certificate } = root;
  assert.equal(certificate.isCa, true);
  assert.equal(certificate.selfSigned, true);
  assert.equal(certificate.subject, 'CN=root');
  assert.deepEqual(certificate.keyType, { type: 'ec', curve: 'P-256' });
});

test('the key type of a leaf is the one that OpenSSL reports, for every kind', () => {
  const pem = { type: 'pkcs8', format: 'pem' } as const;
  const keys = [
    generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
    generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey,
    generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
  ];
  const described = keys.map((each) => {
    const own = PrivateKey.fromPem(each.export(pem));
    const certificate = middle.issue(own, { uris: ['spiffe://td/a'] });
    assert.equal(certificate.publicKeyFingerprint, own.publicKeyFingerprint);
    return certificate.keyType;
  });
  assert.deepEqual(described, [
    { type: 'ec', curve: 'P-256' },
    { type: 'ec', curve: 'P-384' },
    { type: 'rsa', bits: 2048 },
  ]);
});

test('a leaf whose key is not a point of its curve is read, matches no key, and issued nothing', () => {
  const own = PrivateKey.generate();
  const der = middle.issue(own, { uris: ['spiffe://td/a'] }).der;
  const point = der.indexOf(own.spki.subarray(-64));
  der.fill(0x11, point, point + 64);
  const broken = Certificate.fromDer(der);
  assert.notEqual(broken.publicKeyFingerprint, own.publicKeyFingerprint);
  assert.equal(broken.isIssuedBy(middle.certificate), false);
  assert.equal(leaf.isIssuedBy(broken), false);
  assert.equal(broken.selfSigned, false);
});

test('a certificate whose key is the point at infinity is read, issues nothing, and does not end the process', () => {
  const own = PrivateKey.generate();
  const spki = Buffer.from('3019301306072a8648ce3d020106082a8648ce3d03010703020000', 'hex');
  const fields = {
    serial: 1n,
    subject: { commonName: 'nowhere' },
    issuer: { commonName: 'nowhere' },
    notBefore: Date.UTC(2026, 0, 1),
    notAfter: Date.UTC(2060, 0, 1),
    publicKey: spki,
    signingKey: own.keyObject,
    names: {},
    basicConstraints: true,
    keyUsage: ['digitalSignature'],
    eku: [],
    subjectKeyId: undefined,
    authorityKeyId: undefined,
  } as const;
  for (const ca of [true, false]) {
    const pointless = Certificate.fromDer(encodeCertificate({ ...fields, ca }));
    assert.equal(pointless.keyType.type, 'other');
    assert.ok(pointless.defect);
    assert.equal(pointless.isIssuedBy(pointless), false);
    assert.equal(pointless.selfSigned, false);
  }
});

test('issued-by checks the signature and not only the name', () => {
  const impostor = SandboxCa.root({ name: 'middle' });
  assert.equal(leaf.isIssuedBy(middle.certificate), true);
  assert.equal(leaf.isIssuedBy(root.certificate), false);
  assert.equal(leaf.isIssuedBy(impostor.certificate), false);
  const sameIds = middle.issue(key, { uris: ['spiffe://td/b'] });
  assert.equal(sameIds.isIssuedBy(middle.certificate), true);
});

test('a root renewed with its key and a cross-signed root are issuers of the same leaves', () => {
  const renewed = root.renew();
  const other = SandboxCa.root({ name: 'other' });
  assert.notEqual(renewed.certificate.fingerprint, root.certificate.fingerprint);
  assert.equal(middle.certificate.isIssuedBy(renewed.certificate), true);
  const crossed = other.crossSign(root);
  assert.equal(middle.certificate.isIssuedBy(crossed), true);
  assert.equal(crossed.isIssuedBy(other.certificate), true);
  assert.equal(crossed.selfSigned, false);
});

test('PEM is normalised and reads back as the same certificate', () => {
  const messy = `junk\n${leaf.pem.replaceAll('\n', '\r\n')}`;
  const [certificate] = parseCertificates(messy);
  assert.equal(certificate?.fingerprint, leaf.fingerprint);
  assert.equal(certificate?.pem, leaf.pem);
  assert.match(leaf.pem, /-----END CERTIFICATE-----\n$/);
});

test('a list keeps its order and drops duplicates (istio-csr issues 30 and 105)', () => {
  const pem = formatCertificates([leaf, middle.certificate, middle.certificate, leaf, root.certificate]);
  assert.deepEqual(
    parseCertificates(pem).map(({ fingerprint }) => fingerprint),
    [leaf, middle.certificate, root.certificate].map(({ fingerprint }) => fingerprint),
  );
});

test('other blocks are skipped', () => {
  const pem = key.toPem() + leaf.pem;
  assert.equal(parseCertificates(pem).length, 1);
  assert.throws(() => parseCertificates(key.toPem()), { code: 'ERR_PEM_EMPTY' });
});

test('bytes that are not a certificate, and bytes after one, are refused', () => {
  const broken = Buffer.from(leaf.der);
  broken.fill(0, 10, 40);
  for (const der of [
    Buffer.from('hello'),
    Buffer.alloc(0),
    broken,
    leaf.der.subarray(0, -1),
    Buffer.concat([leaf.der, Buffer.from([0])]),
  ]) {
    assert.throws(() => Certificate.fromDer(der), { name: 'PkiError', code: 'ERR_CERT_SYNTAX' });
  }
  assert.throws(() => parseCertificates(formatPem('CERTIFICATE', Buffer.from('x'))), { code: 'ERR_CERT_SYNTAX' });
});

test('the caller may reuse the buffer that a certificate was read from', () => {
  const bytes = Buffer.from(leaf.der);
  const certificate = Certificate.fromDer(bytes);
  bytes.fill(0);
  assert.equal(certificate.pem, leaf.pem);
});

test('a certificate logs as facts, not as bytes', () => {
  assert.deepEqual(Object.keys(JSON.parse(JSON.stringify(leaf))), [
    'subject',
    'issuer',
    'serial',
    'fingerprint',
    'notBefore',
    'notAfter',
    'names',
  ]);
});
