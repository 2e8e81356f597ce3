import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { formatPem } from './der.ts';
import { PrivateKey } from './key.ts';

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;

test('a new key is P-256 and is written as one PKCS#8 block', () => {
  const key = PrivateKey.generate();
  assert.deepEqual(key.keyType, { type: 'ec', curve: 'P-256' });
  assert.match(key.toPem(), /^-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END PRIVATE KEY-----\n$/);
  assert.equal(PrivateKey.fromPem(key.toPem()).publicKeyFingerprint, key.publicKeyFingerprint);
});

test('PKCS#8, SEC1 and PKCS#1 are read and all are written as PKCS#8', () => {
  const forms = [
    ec.export({ type: 'pkcs8', format: 'pem' }),
    ec.export({ type: 'sec1', format: 'pem' }),
    rsa.export({ type: 'pkcs8', format: 'pem' }),
    rsa.export({ type: 'pkcs1', format: 'pem' }),
  ].map(String);
  for (const pem of forms) assert.match(PrivateKey.fromPem(pem).toPem(), /^-----BEGIN PRIVATE KEY-----/);
  assert.deepEqual(PrivateKey.fromPem(forms[3] ?? '').keyType, { type: 'rsa', bits: 2048 });
});

test('EC PARAMETERS before the key, as openssl ecparam writes it, and a certificate beside it are skipped', () => {
  const parameters = formatPem('EC PARAMETERS', Buffer.from('06082a8648ce3d030107', 'hex'));
  const pem = parameters + ec.export({ type: 'sec1', format: 'pem' }) + formatPem('CERTIFICATE', Buffer.from('x'));
  assert.deepEqual(PrivateKey.fromPem(pem).keyType, { type: 'ec', curve: 'P-256' });
});

test('two keys, no key, an encrypted key and a broken key have different errors', () => {
  const pem = String(ec.export({ type: 'pkcs8', format: 'pem' }));
  const locked = ec.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'p' });
  assert.throws(() => PrivateKey.fromPem(pem + pem), { code: 'ERR_KEY_COUNT' });
  assert.throws(() => PrivateKey.fromPem(formatPem('CERTIFICATE', Buffer.from('x'))), { code: 'ERR_KEY_COUNT' });
  assert.throws(() => PrivateKey.fromPem(String(locked)), { code: 'ERR_KEY_TYPE' });
  assert.throws(() => PrivateKey.fromPem(formatPem('PRIVATE KEY', Buffer.from('x'))), { code: 'ERR_KEY_SYNTAX' });
});

test('a key whose public half is the point at infinity is refused, and does not end the process', () => {
  const whole = ec.export({ type: 'sec1', format: 'der' });
  const half = whole.subarray(0, whole.indexOf(Buffer.from('a144', 'hex')));
  const der = Buffer.concat([half, Buffer.from('a10403020000', 'hex')]);
  der[1] = der.length - 2;
  assert.throws(() => PrivateKey.fromPem(formatPem('EC PRIVATE KEY', der)), { code: 'ERR_KEY_SYNTAX' });
});

test('a public key is not mistaken for a private one', () => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  assert.throws(() => PrivateKey.fromKeyObject(publicKey), { code: 'ERR_KEY_TYPE' });
});

test('a key does not print, however it is nested', () => {
  const key = PrivateKey.generate();
  const body = key.toPem().split('\n')[1] ?? '';
  const nested = { identity: { chain: [], key }, keys: [key], map: new Map([['k', key]]) };
  const error = new Error(`failed with ${key}`, { cause: nested });
  const printed = [
    JSON.stringify(nested),
    inspect(nested, { depth: 10, showHidden: true, getters: true }),
    inspect(error, { depth: 10 }),
    String(key),
    `${key}`,
    JSON.stringify({ ...key }),
    JSON.stringify(Object.entries(key)),
  ];
  for (const text of printed) {
    assert.ok(!text.includes(body), text);
    assert.doesNotMatch(text, /PRIVATE KEY/);
  }
  assert.equal(JSON.stringify({ key }), '{"key":"[redacted]"}');
  assert.equal(inspect({ key }), '{ key: [redacted] }');
  assert.deepEqual(Object.keys(key), []);
});
