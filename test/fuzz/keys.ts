import {
  constants,
  createECDH,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto';
import { nothing, oid, sequence } from './der.ts';

export type KeyKind = 'p256' | 'p384' | 'p521' | 'secp256k1' | 'rsa2048' | 'rsa1024' | 'ed25519';
export type Digest = 'sha1' | 'sha256' | 'sha384' | 'sha512';

export interface Key {
  readonly kind: KeyKind;
  readonly privateKey: KeyObject;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Buffer;
  readonly pem: string;
}

const CURVES = {
  p256: { name: 'prime256v1', jwk: 'P-256', bytes: 32 },
  p384: { name: 'secp384r1', jwk: 'P-384', bytes: 48 },
  p521: { name: 'secp521r1', jwk: 'P-521', bytes: 66 },
  secp256k1: { name: 'secp256k1', jwk: 'secp256k1', bytes: 32 },
} as const;

const made = new Map<string, Key>();

/**
 * Key number `n` of its kind. Keys on curves are the same in each process; RSA keys are made once in a process, since
 * no seed decides them.
 */
export function keyOf(kind: KeyKind, n: number): Key {
  const place = `${kind}-${n}`;
  const known = made.get(place);
  if (known) return known;
  const privateKey = privateKeyOf(kind, place);
  const key: Key = {
    kind,
    privateKey,
    spki: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    pem: String(privateKey.export({ type: 'pkcs8', format: 'pem' })),
  };
  made.set(place, key);
  return key;
}

function privateKeyOf(kind: KeyKind, place: string): KeyObject {
  if (kind === 'rsa1024' || kind === 'rsa2048') {
    return generateKeyPairSync('rsa', { modulusLength: kind === 'rsa1024' ? 1024 : 2048 }).privateKey;
  }
  const secret = createHash('sha512').update(`meshcert fuzz ${place}`).digest();
  if (kind === 'ed25519') {
    const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), secret.subarray(0, 32)]);
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  }
  const { name, jwk, bytes } = CURVES[kind];
  const scalar = Buffer.alloc(bytes);
  secret.copy(scalar, Math.max(0, bytes - secret.length), 0, bytes);
  // Below the order of each curve.
  scalar[0] = kind === 'p521' ? 0 : (scalar[0] ?? 0) & 0x7f;
  const curve = createECDH(name);
  curve.setPrivateKey(scalar);
  const point = curve.getPublicKey();
  const [x, y] = [point.subarray(1, 1 + bytes), point.subarray(1 + bytes)].map((part) => part.toString('base64url'));
  const key = { kty: 'EC', crv: jwk, x: x ?? '', y: y ?? '', d: scalar.toString('base64url') };
  return createPrivateKey({ key, format: 'jwk' });
}

const ECDSA = {
  sha1: '1.2.840.10045.4.1',
  sha256: '1.2.840.10045.4.3.2',
  sha384: '1.2.840.10045.4.3.3',
  sha512: '1.2.840.10045.4.3.4',
} as const;
const RSA = {
  sha1: '1.2.840.113549.1.1.5',
  sha256: '1.2.840.113549.1.1.11',
  sha384: '1.2.840.113549.1.1.12',
  sha512: '1.2.840.113549.1.1.13',
} as const;

export interface Signing {
  /** AlgorithmIdentifier, DER. */
  readonly algorithm: Buffer;
  sign(tbs: Buffer): Buffer;
}

export function signing({ kind, privateKey }: Key, digest: Digest, pss = false): Signing {
  if (kind === 'ed25519') {
    return { algorithm: sequence(oid('1.3.101.112')), sign: (tbs) => sign(null, tbs, privateKey) };
  }
  if (kind !== 'rsa1024' && kind !== 'rsa2048') {
    return { algorithm: sequence(oid(ECDSA[digest])), sign: (tbs) => sign(digest, tbs, privateKey) };
  }
  if (!pss) return { algorithm: sequence(oid(RSA[digest]), nothing()), sign: (tbs) => sign(digest, tbs, privateKey) };
  const padded = { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
  return { algorithm: PSS_SHA256, sign: (tbs) => sign('sha256', tbs, padded) };
}

/** RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes. */
const PSS_SHA256 = Buffer.from(
  '304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120',
  'hex',
);
