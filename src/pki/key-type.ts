import type { AsymmetricKeyDetails, KeyObject } from 'node:crypto';

export type KeyType =
  | { readonly type: 'ec'; readonly curve: string }
  | { readonly type: 'rsa'; readonly bits: number }
  | { readonly type: 'other'; readonly name: string };

/** NIST's names for the curves that OpenSSL calls otherwise. */
const CURVES: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' };

export const P256: KeyType = { type: 'ec', curve: 'P-256' };

/** Up to and with the byte that says that both coordinates follow. */
const P256_HEAD = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex');
const P256_LENGTH = 91;

/** Whether a SubjectPublicKeyInfo is a P-256 key in the form in which everybody writes it. */
export const isP256 = (spki: Buffer): boolean =>
  spki.length === P256_LENGTH && spki.subarray(0, P256_HEAD.length).equals(P256_HEAD);

export function keyTypeOf(key: KeyObject): KeyType {
  const details = detailsOf(key);
  if (key.asymmetricKeyType === 'ec') {
    const name = details.namedCurve ?? 'unnamed';
    return { type: 'ec', curve: CURVES[name] ?? name };
  }
  if (key.asymmetricKeyType === 'rsa') return { type: 'rsa', bits: details.modulusLength ?? 0 };
  return { type: 'other', name: key.asymmetricKeyType ?? 'unknown' };
}

/** Throws for a key without a point: asked for the details of such a key, Node ends the whole process. */
export function detailsOf(key: KeyObject): AsymmetricKeyDetails {
  key.export({ type: key.type === 'private' ? 'pkcs8' : 'spki', format: 'der' });
  return key.asymmetricKeyDetails ?? {};
}

/** `EC P-256`, `RSA 2048`, `ed25519`. */
export function describeKeyType(keyType: KeyType): string {
  if (keyType.type === 'ec') return `EC ${keyType.curve}`;
  return keyType.type === 'rsa' ? `RSA ${keyType.bits}` : keyType.name;
}
