import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';

export interface Signature {
  readonly bytes: Buffer;
  /** PEM of the public key that verifies it. */
  readonly publicKey: string;
}

/** A signature that `openssl dgst -sha256 -verify` accepts, by the unencrypted private key in a PEM file. */
export async function signatureOf(content: Buffer, keyFile: string): Promise<Signature> {
  const key = keyOf(await readFile(keyFile, 'utf8'), keyFile);
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'pem' }) as string;
  return { bytes: sign('sha256', content, key), publicKey };
}

function keyOf(pem: string, file: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw new TypeError(`${file} is not an unencrypted private key in PEM; make one with: openssl ecparam -genkey`);
  }
  if (key.asymmetricKeyType === 'ec' || key.asymmetricKeyType === 'rsa') return key;
  throw new TypeError(`${file} is a key of type ${key.asymmetricKeyType}; --sign-key takes EC and RSA keys`);
}
