import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { createCsr } from './csr.ts';
import { PrivateKey } from './key.ts';

const key = PrivateKey.generate();

test('names that no certificate can carry are refused by name', () => {
  assert.throws(() => createCsr(key, { uris: ['spiffe://td/ü'] }), { code: 'ERR_CSR_NAME', message: /ü/ });
  assert.throws(() => createCsr(key, { dns: [''] }), { code: 'ERR_CSR_NAME' });
  assert.throws(() => createCsr(key, { dns: ['a\0b'] }), { code: 'ERR_CSR_NAME' });
  assert.throws(() => createCsr(key, { commonName: '' }), { code: 'ERR_CSR_NAME' });
  assert.throws(() => createCsr(key, { commonName: 'x'.repeat(65) }), { code: 'ERR_CSR_NAME', message: /64/ });
});

test('a key that cannot sign is refused', () => {
  const odd = PrivateKey.fromKeyObject(generateKeyPairSync('x25519').privateKey);
  assert.throws(() => createCsr(odd, { uris: ['spiffe://td/a'] }), { code: 'ERR_KEY_TYPE', message: /x25519/ });
});
