import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { ROOT_TIMES_ANNOTATION } from '../core/trust.ts';
import type { KubeObject } from '../objects/objects.ts';
import { type Certificate, formatCertificates } from '../pki/certificate.ts';
import { readPublication } from './publication.ts';

const spec = { secretName: 'istio-identity', caSecretName: 'istio-ca' };
const [a, b] = [SandboxCa.root({ name: 'a' }), SandboxCa.root({ name: 'b' })] as const;
const [rootA, rootB] = [a.certificate, b.certificate] as const;
const { key, chain } = a.identity({ uris: ['spiffe://td/x'] });
const base64 = (text: string) => Buffer.from(text).toString('base64');
const secret = (name: string, data: Record<string, string>, annotations = {}): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace: 'emissary', annotations },
  data: Object.fromEntries(Object.entries(data).map(([field, text]) => [field, base64(text)])),
});
const pairWith = (roots: readonly Certificate[]) =>
  secret('istio-identity', {
    'tls.key': key.toPem(),
    'tls.crt': formatCertificates(chain),
    'ca.crt': formatCertificates(roots),
  });
const bundleOf = (roots: readonly Certificate[], annotations = {}) =>
  secret('istio-ca', { 'tls.crt': formatCertificates(roots), 'ca.crt': formatCertificates(roots) }, annotations);
const names = (roots: readonly Certificate[]) => roots.map(({ subject }) => subject);

test('a publication reads back with the times that are stored beside its roots', () => {
  const times = `-${rootB.fingerprint.slice(0, 16)}=2026-01-01T00:00:00Z`;
  const read = readPublication(spec, [bundleOf([rootA, rootB], { [ROOT_TIMES_ANNOTATION]: times }), pairWith([rootA])]);
  assert.deepEqual(names(read.bundle), ['CN=a', 'CN=b']);
  assert.deepEqual(read.since.get(rootB.fingerprint), { state: 'retained', at: Date.UTC(2026, 0, 1) });
  assert.equal(read.identity?.key.publicKeyFingerprint, key.publicKeyFingerprint);
  assert.deepEqual(read.problems, []);
});

describe('the copy of the bundle beside the pair is read', () => {
  test('if the CA Secret is gone', () => {
    assert.deepEqual(names(readPublication(spec, [pairWith([rootA, rootB])]).bundle), ['CN=a', 'CN=b']);
  });

  test('if the CA Secret cannot be read, and that is reported', () => {
    const read = readPublication(spec, [secret('istio-ca', { 'tls.crt': 'garbage' }), pairWith([rootA])]);
    assert.deepEqual(names(read.bundle), ['CN=a']);
    assert.deepEqual(
      read.problems.map(({ object }) => object),
      ['Secret emissary/istio-ca'],
    );
  });

  test('if somebody removed the root that the pair needs', () => {
    assert.deepEqual(names(readPublication(spec, [bundleOf([rootB]), pairWith([rootA, rootB])]).bundle), [
      'CN=b',
      'CN=a',
    ]);
  });

  test('but not if the CA Secret carries the pair: a root that was dropped stays dropped', () => {
    assert.deepEqual(names(readPublication(spec, [bundleOf([rootA]), pairWith([rootA, rootB])]).bundle), ['CN=a']);
  });
});

test('absent and unreadable objects are no publication, and no error', () => {
  const nothing = readPublication(spec, []);
  assert.deepEqual([nothing.bundle.length, nothing.identity, nothing.problems.length], [0, undefined, 0]);
  const broken = readPublication(spec, [secret('istio-identity', { 'tls.crt': 'x', 'tls.key': 'y' })]);
  assert.deepEqual([broken.bundle.length, broken.identity], [0, undefined]);
  assert.deepEqual(
    broken.problems.map(({ object }) => object),
    ['Secret emissary/istio-identity'],
  );
});
