import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { formatPem } from './der.ts';
import { PrivateKey } from './key.ts';
import { newP256, p256FormsIn, p256KeyObject } from './p256.ts';

const newKey = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve }).privateKey;
const pkcs8 = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'der' });
const spki = (key: KeyObject) => createPublicKey(key).export({ type: 'spki', format: 'der' });

test('keys that are read and new ones are encoded as by OpenSSL, even if a number begins with zeros', () => {
  let short = 0;
  for (let round = 0; round < 600; round++) {
    const forms = newP256();
    if ([36, 74, 106].some((at) => forms.pkcs8[at] === 0)) short += 1;
    const key = createPrivateKey({ key: forms.pkcs8, format: 'der', type: 'pkcs8' });
    assert.deepEqual({ pkcs8: pkcs8(key), spki: spki(key) }, forms);
    assert.deepEqual(p256FormsIn(forms.pkcs8), forms);
    assert.deepEqual(p256FormsIn(key.export({ type: 'sec1', format: 'der' })), forms);
    assert.ok(p256KeyObject(forms.pkcs8).equals(key));
  }
  assert.ok(short > 0, 'one in 85 has such a number');
});

test('keys are generated and used by the thousand: Node may hang forever depending on how they are generated', () => {
  for (let round = 0; round < 10_000; round++) assert.equal(PrivateKey.generate().keyObject.type, 'private');
});

test('other curves and other kinds are left to OpenSSL', () => {
  for (const curve of ['secp384r1', 'secp256k1', 'secp224r1']) {
    assert.equal(p256FormsIn(pkcs8(newKey(curve))), undefined);
  }
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  assert.equal(p256FormsIn(pkcs8(privateKey)), undefined);
  assert.equal(p256FormsIn(Buffer.alloc(0)), undefined);
});

test("an invalid scalar, or one with another key's point, is refused: OpenSSL would accept it", () => {
  const good = pkcs8(newKey('prime256v1'));
  const zero = Buffer.from(good).fill(0, 36, 68);
  const huge = Buffer.from(good).fill(0xff, 36, 68);
  const foreign = Buffer.concat([good.subarray(0, 73), pkcs8(newKey('prime256v1')).subarray(73)]);
  for (const bytes of [zero, huge, foreign]) {
    assert.equal(p256FormsIn(bytes), undefined);
    assert.throws(() => PrivateKey.fromPem(formatPem('PRIVATE KEY', bytes)), { code: 'ERR_KEY_SYNTAX' });
  }
  for (const bytes of [good.subarray(0, -1), Buffer.concat([good, Buffer.of(0)])]) {
    assert.equal(p256FormsIn(bytes), undefined);
  }
});

test('the halves are compared in every form and on every curve', () => {
  for (const [curve, size] of [
    ['prime256v1', 65],
    ['secp384r1', 97],
    ['secp521r1', 133],
  ] as const) {
    const sec1 = newKey(curve).export({ type: 'sec1', format: 'der' });
    const foreign = newKey(curve).export({ type: 'sec1', format: 'der' });
    const mixed = Buffer.concat([sec1.subarray(0, -size), foreign.subarray(-size)]);
    assert.ok(PrivateKey.fromPem(formatPem('EC PRIVATE KEY', sec1)));
    assert.throws(() => PrivateKey.fromPem(formatPem('EC PRIVATE KEY', mixed)), {
      code: 'ERR_KEY_SYNTAX',
      message: /private half .* does not belong to its public half/,
    });
  }
});
