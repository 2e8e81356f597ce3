import assert from 'node:assert/strict';
import { type KeyObject, sign, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { verify } from '../../src/core/verify.ts';
import { Certificate } from '../../src/pki/certificate.ts';
import { bitString, children, readTlv, seq } from '../../src/pki/der.ts';
import { KEY_CERT_SIGN } from '../../src/pki/extensions.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { opensslRefusal } from '../support/openssl-judge.ts';
import { type Edit, edited, edits } from './der-tree.ts';
import { awkwardNames, dnsNames, spiffeIds } from './names.ts';

const RUNS = Number(process.env.MESHCERT_MODEL_RUNS ?? 300);
const key = PrivateKey.generate();
const rootKey = PrivateKey.generate();
const middleKey = PrivateKey.generate();
const root = SandboxCa.root({ name: 'Root', organization: 'cluster.local', key: rootKey });
const middle = root.intermediate({ name: 'Middle', key: middleKey });

const leaves = fc.record({
  uris: fc.array(spiffeIds, { minLength: 1, maxLength: 1 }),
  dns: fc.array(fc.oneof(dnsNames, awkwardNames), { maxLength: 1 }),
  commonName: fc.oneof(dnsNames, awkwardNames),
  bare: fc.boolean(),
});
const few = fc.array(edits, { minLength: 1, maxLength: 2 });

/** Edited, and signed again, so that only the edit can be wrong. Undefined: OpenSSL or we cannot read it. */
function resigned(certificate: Certificate, list: readonly Edit[], by: KeyObject): Certificate | undefined {
  const [signed, algorithm] = children(readTlv(certificate.der));
  assert.ok(signed && algorithm);
  const body = edited(signed.raw, list);
  const der = seq(body, algorithm.raw, bitString(sign('sha256', body, by)));
  try {
    return Certificate.fromDer(der);
  } catch {
    return undefined;
  }
}

const scenes = fc.record({
  names: leaves,
  where: fc.constantFrom('leaf', 'intermediate', 'root'),
  list: few,
});

test('a pair that passes is accepted by OpenSSL in a handshake, whatever is edited in its certificates', async () => {
  let passed = 0;
  await fc.assert(
    fc.asyncProperty(scenes, async ({ names, where, list }) => {
      const leaf = middle.issue(key, names);
      const made = {
        leaf: where === 'leaf' ? resigned(leaf, list, middleKey.keyObject) : leaf,
        intermediate:
          where === 'intermediate' ? resigned(middle.certificate, list, rootKey.keyObject) : middle.certificate,
        root: where === 'root' ? resigned(root.certificate, list, rootKey.keyObject) : root.certificate,
      };
      if (!made.leaf || !made.intermediate || !made.root) return;
      const pair = { key, chain: [made.leaf, made.intermediate] };
      if (!verify(pair, [made.root], { form: 'spiffe' }, Date.now()).ok) return;
      passed += 1;
      assert.equal(await opensslRefusal(pair, [made.root]), undefined);
    }),
    { numRuns: RUNS, includeErrorInReport: true },
  );
  assert.ok(passed > RUNS / 20, `only ${passed} passed: the comparison would prove little`);
});

test('a certificate is read as OpenSSL reads it, whatever is edited in it', () => {
  fc.assert(
    fc.property(leaves, few, fc.boolean(), (names, list, ofCa) => {
      const made = ofCa
        ? resigned(middle.certificate, list, rootKey.keyObject)
        : resigned(middle.issue(key, names), list, middleKey.keyObject);
      if (!made || made.defect) return;
      const theirs = new X509Certificate(made.der);
      const issuer = ofCa ? root.certificate : middle.certificate;
      assert.equal(made.serial, theirs.serialNumber);
      assert.equal(made.subject, (theirs.subject ?? '').replaceAll('\n', ', '));
      assert.equal(made.isCa && made.allows(KEY_CERT_SIGN), theirs.ca, made.pem);
      assert.equal(made.notAfter, Date.parse(theirs.validTo));
      if (made.isIssuedBy(issuer)) assert.ok(theirs.checkIssued(new X509Certificate(issuer.der)));
    }),
    { numRuns: RUNS, includeErrorInReport: true },
  );
});
