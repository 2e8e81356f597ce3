import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { signatureOf } from './signature.ts';

const openssl = (dir: string, ...args: string[]): string =>
  execFileSync('openssl', args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

const KEYS = {
  EC: ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', 'key'],
  RSA: ['genrsa', '-out', 'key', '2048'],
};

for (const [kind, make] of Object.entries(KEYS)) {
  test(`OpenSSL verifies a signature by an ${kind} key, and refuses it for changed content`, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'meshcert-signature-'));
    try {
      openssl(dir, ...make);
      writeFileSync(join(dir, 'sums'), 'content\n');
      const { bytes, publicKey } = await signatureOf(Buffer.from('content\n'), join(dir, 'key'));
      writeFileSync(join(dir, 'sums.sig'), bytes);
      writeFileSync(join(dir, 'sums.pem'), publicKey);
      const verify = ['dgst', '-sha256', '-verify', 'sums.pem', '-signature', 'sums.sig', 'sums'];
      assert.match(openssl(dir, ...verify), /Verified OK/);
      appendFileSync(join(dir, 'sums'), 'more\n');
      assert.throws(() => openssl(dir, ...verify), /Verification failure|Command failed/);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
}

test('a key of another type, and a file that is none, are refused by name', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'meshcert-signature-'));
  try {
    const file = join(dir, 'key');
    openssl(dir, 'genpkey', '-algorithm', 'ed25519', '-out', 'key');
    await assert.rejects(
      signatureOf(Buffer.alloc(0), file),
      /key is a key of type ed25519; --sign-key takes EC and RSA/,
    );
    writeFileSync(file, 'nothing');
    await assert.rejects(signatureOf(Buffer.alloc(0), file), /key is not an unencrypted private key in PEM/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
