import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { isPlainLeaf } from '../../test/support/plain.ts';
import { SandboxCa } from '../sandbox/ca.ts';
import { PrivateKey } from './key.ts';

const key = PrivateKey.generate();
const ca = SandboxCa.root({ name: 'Root CA', organization: 'cluster.local' });
const spiffe = { uris: ['spiffe://cluster.local/ns/emissary/sa/emissary'] };

test('leaves as meshes issue them are read without OpenSSL', () => {
  const rsa = PrivateKey.fromPem(
    generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' }),
  );
  const leaves = {
    Istio: ca.issue(key, spiffe),
    'Istio below a CA with an RSA key': SandboxCa.root({ key: rsa }).issue(key, spiffe),
    Linkerd: ca.issue(key, { dns: ['a.b.serviceaccount.identity.linkerd.cluster.local'], bare: true }),
    Consul: ca.intermediate({ keyId: 'sha256' }).issue(key, { ...spiffe, commonName: 'web.svc.default.1c053652' }),
  };
  for (const [mesh, leaf] of Object.entries(leaves)) assert.ok(isPlainLeaf(leaf), mesh);
});

test('what is otherwise is left to OpenSSL', () => {
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey;
  const others = {
    'a CA': ca.certificate,
    'another curve': ca.issue(p384, spiffe),
    'a purpose that is not known here': ca.issue(key, { ...spiffe, eku: ['1.3.6.1.5.5.7.3.9'] }),
    'a subject that OpenSSL prints with escapes': ca.issue(key, { ...spiffe, commonName: 'a, b' }),
    'a serial number of 0': ca.issue(key, { ...spiffe, serial: 0n }),
  };
  for (const [what, certificate] of Object.entries(others)) assert.ok(!isPlainLeaf(certificate), what);
});
