import { createECDH, createPrivateKey, type KeyObject } from 'node:crypto';
import { detailsOf } from './key-type.ts';

/** The encodings of a private key, DER. */
export interface KeyForms {
  readonly pkcs8: Buffer;
  /** SubjectPublicKeyInfo. */
  readonly spki: Buffer;
}

/** RFC 5208 and 5915 around a scalar of 32 bytes and a point of 65, as OpenSSL, Go and BoringSSL write them. */
const PKCS8_HEAD = Buffer.from('308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420', 'hex');
const PKCS8_MIDDLE = Buffer.from('a144034200', 'hex');
const SEC1_HEAD = Buffer.from('30770201010420', 'hex');
const SEC1_MIDDLE = Buffer.from('a00a06082a8648ce3d030107a144034200', 'hex');
const SPKI_HEAD = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex');
const P256 = 'prime256v1';
const SCALAR = 32;
const POINT = 65;
const UNCOMPRESSED = Buffer.of(4);
/** Curves that Node writes as JWK, by OpenSSL's names. */
const JWK_CURVES: ReadonlySet<string> = new Set([P256, 'secp256k1', 'secp384r1', 'secp521r1']);

/**
 * A new key. Not by `generateKeyPairSync`: garbage collection frees the job that generated the key while it takes the
 * key's lock, and Node hangs forever if that happens while the lock is already held, as it is while such a key is
 * written as JWK.
 */
export function newP256(): KeyForms {
  const curve = createECDH(P256);
  const point = curve.generateKeys();
  const scalar = curve.getPrivateKey();
  return formsOf(Buffer.concat([Buffer.alloc(SCALAR - scalar.length), scalar]), point);
}

/** The signing key for a result of `p256FormsIn` or `newP256`; six times as fast as OpenSSL's decoder. */
export function p256KeyObject(pkcs8: Buffer): KeyObject {
  const number = (from: number) => pkcs8.subarray(from, from + SCALAR).toString('base64url');
  const d = number(PKCS8_HEAD.length);
  const [x, y] = [number(pkcs8.length - 2 * SCALAR), number(pkcs8.length - SCALAR)];
  return createPrivateKey({ key: { kty: 'EC', crv: 'P-256', d, x, y }, format: 'jwk' });
}

/** For a result of `p256FormsIn` or `newP256`: the point is last in both. */
export const p256SpkiOf = (pkcs8: Buffer): Buffer => Buffer.concat([SPKI_HEAD, pkcs8.subarray(-POINT)]);

/**
 * The encodings of a P-256 key in PKCS#8 or SEC1 whose point matches its scalar; undefined for any other encoding.
 * OpenSSL's own decoder takes ten times as long.
 */
export function p256FormsIn(der: Buffer): KeyForms | undefined {
  const isSec1 = der.subarray(0, SEC1_HEAD.length).equals(SEC1_HEAD);
  const [head, middle] = isSec1 ? [SEC1_HEAD, SEC1_MIDDLE] : [PKCS8_HEAD, PKCS8_MIDDLE];
  const scalar = der.subarray(head.length, head.length + SCALAR);
  const point = der.subarray(-POINT);
  if (!der.equals(Buffer.concat([head, scalar, middle, point]))) return undefined;
  return pointOf(P256, scalar)?.equals(point) ? formsOf(scalar, point) : undefined;
}

/**
 * Whether the public half of a private key matches its private half: OpenSSL reads both without a check. Throws for a
 * public half that is not a point.
 */
export function isWhole(key: KeyObject): boolean {
  const curve = detailsOf(key).namedCurve ?? '';
  if (!JWK_CURVES.has(curve)) return true;
  const { scalar, point } = partsOf(key);
  return pointOf(curve, scalar)?.equals(point) === true;
}

function formsOf(scalar: Buffer, point: Buffer): KeyForms {
  return {
    pkcs8: Buffer.concat([PKCS8_HEAD, scalar, PKCS8_MIDDLE, point]),
    spki: Buffer.concat([SPKI_HEAD, point]),
  };
}

function partsOf(key: KeyObject): { scalar: Buffer; point: Buffer } {
  const { d = '', x = '', y = '' } = key.export({ format: 'jwk' });
  const bytes = (part: string) => Buffer.from(part, 'base64url');
  return { scalar: bytes(d), point: Buffer.concat([UNCOMPRESSED, bytes(x), bytes(y)]) };
}

/** Undefined for an invalid scalar of this curve. */
function pointOf(curve: string, scalar: Buffer): Buffer | undefined {
  const ecdh = createECDH(curve);
  try {
    ecdh.setPrivateKey(scalar);
  } catch {
    return undefined;
  }
  return ecdh.getPublicKey();
}
