import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { Certificate } from '../../src/pki/certificate.ts';
import { bitString, children, oid, readTlv, seq, set, utf8 } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { SandboxCa } from '../../src/sandbox/ca.ts';
import { isPlainLeaf } from '../support/plain.ts';
import { type Edit, edited, edits } from './der-tree.ts';
import { awkwardNames, dnsNames, spiffeIds } from './names.ts';

const RUNS = Number(process.env.MESHCERT_MODEL_RUNS ?? 1500);
const key = PrivateKey.generate();
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' });
const keys = { ec: PrivateKey.generate(), rsa: PrivateKey.fromPem(rsa) };
const authorities = Object.values(keys).flatMap((one) => [
  { ca: SandboxCa.root({ key: one, name: 'Root' }), key: one.keyObject },
  {
    ca: SandboxCa.root({ key: one, name: 'Root', organization: 'cluster.local', keyId: 'sha256' }),
    key: one.keyObject,
  },
]);

const leaves = fc.record({
  by: fc.nat(authorities.length - 1),
  uris: fc.array(spiffeIds, { maxLength: 2 }),
  dns: fc.array(fc.oneof({ weight: 4, arbitrary: dnsNames }, { weight: 1, arbitrary: awkwardNames }), { maxLength: 2 }),
  ips: fc.array(fc.ipV4(), { maxLength: 1 }),
  name: fc.option(fc.oneof(dnsNames, awkwardNames), { nil: undefined }),
  bare: fc.boolean(),
  serial: fc.bigInt({ min: 0n, max: 2n ** 130n }),
});
/** Attributes of a subject of their own, by type and text. */
const subjects = fc.array(
  fc.tuple(
    fc.constantFrom(
      '2.5.4.3',
      '2.5.4.5',
      '2.5.4.6',
      '2.5.4.7',
      '2.5.4.8',
      '2.5.4.10',
      '2.5.4.11',
      '2.5.4.45',
      '2.5.4.12',
    ),
    fc.oneof(dnsNames, awkwardNames, fc.constantFrom('US', 'SPIRE', 'Zürich', '', ' a', 'a ', '#1', 'a  b')),
  ),
  { maxLength: 4 },
);

/** Signed anew by the authority, so that only what was edited can be wrong. */
function resigned(
  leaf: Certificate,
  list: readonly Edit[],
  by: KeyObject,
  subject?: readonly [string, string][],
): Buffer {
  const [signed, algorithm] = children(readTlv(leaf.der));
  assert.ok(signed && algorithm);
  const fields = children(signed).map(({ raw }) => raw);
  if (subject) fields[5] = seq(...subject.map(([type, text]) => set(seq(oid(type), utf8(text)))));
  const body = edited(seq(...fields), list);
  return seq(body, algorithm.raw, bitString(sign('sha256', body, by)));
}

interface Seen {
  plain: number;
  issued: number;
  refused: number;
}

/** What we say of a certificate and its issuer is what OpenSSL says; what we refuse is of no use to anybody. */
function compare(der: Buffer, issuer: Certificate, seen: Seen): void {
  let ours: Certificate;
  try {
    ours = Certificate.fromDer(der);
  } catch {
    seen.refused += 1;
    return;
  }
  const theirs = new X509Certificate(der);
  if (isPlainLeaf({ der })) seen.plain += 1;
  assert.equal(ours.serial, theirs.serialNumber);
  assert.equal(ours.subject, (theirs.subject ?? '').replaceAll('\n', ', '));
  assert.equal(ours.issuer, (theirs.issuer ?? '').replaceAll('\n', ', '));
  assert.equal(ours.isCa, theirs.ca);
  assert.equal(ours.notBefore, Date.parse(theirs.validFrom));
  assert.equal(ours.notAfter, Date.parse(theirs.validTo));
  const isIssued = theirs.checkIssued(new X509Certificate(issuer.der)) && wasSigned(theirs, issuer.publicKey);
  assert.equal(ours.isIssuedBy(issuer), isIssued);
  if (isIssued) seen.issued += 1;
}

function wasSigned(certificate: X509Certificate, by: KeyObject): boolean {
  try {
    return certificate.verify(by);
  } catch {
    return false;
  }
}

const nothing = (): Seen => ({ plain: 0, issued: 0, refused: 0 });

test('a leaf is read as OpenSSL reads it, whatever is edited in it and signed anew', () => {
  const seen = nothing();
  fc.assert(
    fc.property(
      leaves,
      fc.array(edits, { maxLength: 2 }),
      fc.option(subjects, { nil: undefined }),
      (options, list, subject) => {
        const { by, name, ...rest } = options;
        const authority = authorities[by];
        assert.ok(authority);
        const leaf = authority.ca.issue(key, { ...rest, ...(name ? { commonName: name } : {}) });
        compare(resigned(leaf, list, authority.key, subject), authority.ca.certificate, seen);
      },
    ),
    { numRuns: RUNS },
  );
  assert.ok(seen.plain > RUNS / 20 && seen.issued > RUNS / 20 && seen.refused < RUNS, JSON.stringify(seen));
});

test('bytes of a leaf are read as OpenSSL reads them, whichever are changed', () => {
  const seen = nothing();
  fc.assert(
    fc.property(
      leaves,
      edits,
      fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { maxLength: 2 }),
      (options, edit, flips) => {
        const { by, name, ...rest } = options;
        const authority = authorities[by];
        assert.ok(authority);
        const leaf = authority.ca.issue(key, { ...rest, ...(name ? { commonName: name } : {}) });
        const der = flips.length === 0 ? edited(leaf.der, [edit]) : Buffer.from(leaf.der);
        for (const [at, value] of flips) der[at % der.length] = value;
        compare(der, authority.ca.certificate, seen);
      },
    ),
    { numRuns: RUNS },
  );
  assert.ok(seen.plain > RUNS / 50 && seen.refused < RUNS, JSON.stringify(seen));
});

test('an issuer says yes only where OpenSSL lets it, whatever is edited in it', () => {
  const [authority] = authorities;
  assert.ok(authority);
  const { ca } = authority;
  const leaf = ca.issue(key, { uris: ['spiffe://td/a'] });
  let issued = 0;
  fc.assert(
    fc.property(fc.array(edits, { maxLength: 1 }), (list) => {
      let issuer: Certificate;
      const der = resigned(ca.certificate, list, authority.key);
      try {
        issuer = Certificate.fromDer(der);
        void issuer.publicKey;
      } catch {
        return;
      }
      const theirs = new X509Certificate(leaf.der);
      const isIssued = theirs.checkIssued(new X509Certificate(der)) && wasSigned(theirs, issuer.publicKey);
      assert.equal(Certificate.fromDer(leaf.der).isIssuedBy(issuer), isIssued);
      if (isIssued) issued += 1;
    }),
    { numRuns: RUNS },
  );
  assert.ok(issued > RUNS / 20, `${issued} issued`);
});
