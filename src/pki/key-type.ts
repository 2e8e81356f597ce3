import type { AsymmetricKeyDetails, KeyObject } from 'node:crypto';
import { children, readOid, TAG, type Tlv } from './der.ts';

export type KeyType =
  | { readonly type: 'ec'; readonly curve: string }
  | { readonly type: 'rsa'; readonly bits: number }
  | { readonly type: 'other'; readonly name: string };

/** NIST's names for the curves to which OpenSSL gives other names. */
const CURVES: Readonly<Record<string, string>> = {
  secp224r1: 'P-224',
  prime256v1: 'P-256',
  secp384r1: 'P-384',
  secp521r1: 'P-521',
};
/** RFC 5480 §2.1.1.1, with the bytes of one coordinate. */
const NAMED_CURVES: Readonly<Record<string, { readonly curve: string; readonly bytes: number }>> = {
  '1.3.132.0.33': { curve: 'P-224', bytes: 28 },
  '1.2.840.10045.3.1.7': { curve: 'P-256', bytes: 32 },
  '1.3.132.0.34': { curve: 'P-384', bytes: 48 },
  '1.3.132.0.35': { curve: 'P-521', bytes: 66 },
};
const EC = '1.2.840.10045.2.1';
const RSA = '1.2.840.113549.1.1.1';
const ED25519 = '1.3.101.112';
/** The limit of Go's crypto/rsa. */
const LARGEST_EXPONENT = 2n ** 31n - 1n;
const UNCOMPRESSED = 4;

export const P256: KeyType = { type: 'ec', curve: 'P-256' };

export function keyTypeOf(key: KeyObject): KeyType {
  const details = detailsOf(key);
  if (key.asymmetricKeyType === 'ec') {
    const name = details.namedCurve ?? 'unnamed';
    return { type: 'ec', curve: CURVES[name] ?? name };
  }
  if (key.asymmetricKeyType === 'rsa') return { type: 'rsa', bits: details.modulusLength ?? 0 };
  return { type: 'other', name: key.asymmetricKeyType ?? 'unknown' };
}

/** Throws for a key without a point: reading the details of such a key crashes the whole Node process. */
export function detailsOf(key: KeyObject): AsymmetricKeyDetails {
  key.export({ type: key.type === 'private' ? 'pkcs8' : 'spki', format: 'der' });
  return key.asymmetricKeyDetails ?? {};
}

/**
 * The type of a key in a SubjectPublicKeyInfo that OpenSSL, BoringSSL and Go all read: a named curve with an
 * uncompressed point, RSA with NULL parameters and an odd exponent, Ed25519. Undefined for every other encoding.
 */
export function commonKeyTypeIn(spki: Tlv): KeyType | undefined {
  const [algorithm, key, ...more] = children(spki);
  if (!algorithm || key?.tag !== TAG.bitString || key.content[0] !== 0 || more.length > 0) return undefined;
  const [id, parameters, ...others] = children(algorithm);
  if (id?.tag !== TAG.oid || others.length > 0) return undefined;
  const bits = key.content.subarray(1);
  switch (readOid(id)) {
    case EC:
      return ecTypeIn(parameters, bits);
    case RSA:
      return parameters?.tag === TAG.null && parameters.content.length === 0 ? rsaTypeIn(bits) : undefined;
    case ED25519:
      return parameters === undefined && bits.length === 32 ? { type: 'other', name: 'ed25519' } : undefined;
    default:
      return undefined;
  }
}

function ecTypeIn(parameters: Tlv | undefined, point: Buffer): KeyType | undefined {
  const named = parameters?.tag === TAG.oid ? NAMED_CURVES[readOid(parameters)] : undefined;
  if (!named || point[0] !== UNCOMPRESSED || point.length !== 1 + 2 * named.bytes) return undefined;
  return named.curve === 'P-256' ? P256 : { type: 'ec', curve: named.curve };
}

function rsaTypeIn(bits: Buffer): KeyType | undefined {
  const whole: Tlv = { tag: TAG.bitString, content: bits, raw: bits };
  const [sequence, ...after] = children(whole);
  if (sequence?.tag !== TAG.sequence || after.length > 0) return undefined;
  const [modulus, exponent, ...more] = children(sequence).map(positive);
  if (modulus === undefined || exponent === undefined || more.length > 0) return undefined;
  if (modulus % 2n === 0n || exponent % 2n === 0n || exponent < 3n || exponent > LARGEST_EXPONENT) return undefined;
  return { type: 'rsa', bits: modulus.toString(2).length };
}

/** Undefined for anything but a positive INTEGER without padding. */
function positive({ tag, content }: Tlv): bigint | undefined {
  const [first = 0x80, second = 0x80] = content;
  if (tag !== TAG.integer || first >= 0x80 || (first === 0 && second < 0x80)) return undefined;
  return BigInt(`0x${content.toString('hex')}`);
}

/** `EC P-256`, `RSA 2048`, `ed25519`. */
export function describeKeyType(keyType: KeyType): string {
  if (keyType.type === 'ec') return `EC ${keyType.curve}`;
  return keyType.type === 'rsa' ? `RSA ${keyType.bits}` : keyType.name;
}
