import assert from 'node:assert/strict';
import { it } from 'node:test';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { formatCertificates } from '../../../src/pki/certificate.ts';
import { PairHistory } from './pair-history.ts';

const of = (ca: SandboxCa) => {
  const { key, chain } = ca.identity({ uris: ['spiffe://cluster.local/ns/a/sa/b'], lifetimeMs: 3_600_000 });
  const leaf = chain[0]?.fingerprint ?? '';
  const roots = formatCertificates([ca.certificate]);
  return { leaf, root: ca.certificate.fingerprint, certificate: formatCertificates(chain), key: key.toPem(), roots };
};
const [old, young] = [of(SandboxCa.root()), of(SandboxCa.root({ name: 'another' }))];

it('counts each version between the first and the last file of a rotation that a server could not use', async () => {
  const history = new PairHistory();
  history.wrote({ certificate: old.certificate }, 0);
  history.wrote({ key: old.key }, 1);
  assert.equal(history.versions, 0, 'nothing is complete yet');
  history.wrote({ roots: old.roots }, 2);
  history.wrote({ certificate: young.certificate }, 10);
  history.wrote({ key: young.key }, 12);
  history.wrote({ key: young.key }, 13);
  history.wrote({ roots: young.roots }, 17);
  const { versions, wrongKeys, unverified, badMs } = history;
  assert.deepEqual({ versions, wrongKeys, unverified, badMs }, { versions: 4, wrongKeys: 1, unverified: 2, badMs: 7 });
  assert.equal(await history.stood(young.leaf, young.root, 1_000), 17);
});

it('finds nothing wrong with an atomic write, roots first', async () => {
  const history = new PairHistory();
  history.wrote(old, 0);
  const waiting = history.stood(young.leaf, young.root, 10_000);
  history.wrote({ roots: old.roots + young.roots }, 1);
  history.wrote({ certificate: young.certificate, key: young.key }, 2);
  assert.equal(await waiting, 2);
  const { versions, wrongKeys, unverified, badMs } = history;
  assert.deepEqual({ versions, wrongKeys, unverified, badMs }, { versions: 3, wrongKeys: 0, unverified: 0, badMs: 0 });
});

it('treats an unreadable version as an unusable one', () => {
  const history = new PairHistory();
  history.wrote({ ...old, certificate: 'half a certif' }, 0);
  history.wrote({ certificate: old.certificate, key: 'half a k' }, 3);
  assert.deepEqual([history.wrongKeys, history.unverified, history.badMs], [2, 1, 3]);
});
