import { explicit, int, nullValue, oid, seq } from './der.ts';

/** AlgorithmIdentifier of the signatures that are made here; DER, RFC 5758 §3.2 and 4055 §5. */
export const ECDSA_SHA256 = seq(oid('1.2.840.10045.4.3.2'));
/** RFC 8410 §3. */
export const ED25519 = seq(oid('1.3.101.112'));
export const RSA_SHA256 = seq(oid('1.2.840.113549.1.1.11'), nullValue());

const HASHES = [
  ['2.16.840.1.101.3.4.2.1', 32, 'sha256'],
  ['2.16.840.1.101.3.4.2.2', 48, 'sha384'],
  ['2.16.840.1.101.3.4.2.3', 64, 'sha512'],
] as const;

/** RSASSA-PSS with one hash throughout and a salt of its length (RFC 4055 §3.1). */
const pss = ([id, length]: (typeof HASHES)[number]): Buffer => {
  const hash = seq(oid(id), nullValue());
  const mask = seq(oid('1.2.840.113549.1.1.8'), hash);
  return seq(oid('1.2.840.113549.1.1.10'), seq(explicit(0, hash), explicit(1, mask), explicit(2, int(length))));
};

export interface SignatureAlgorithm {
  /** AlgorithmIdentifier, DER. */
  readonly der: Buffer;
  /** As Node.js names it. */
  readonly keyType: 'ec' | 'rsa' | 'ed25519';
  readonly digest: 'sha256' | 'sha384' | 'sha512' | null;
  /** Bytes of salt; set for RSASSA-PSS. */
  readonly saltLength?: number;
}

/** The signatures that OpenSSL, BoringSSL and Go all verify. SHA-1 is not among them. */
export const SIGNATURE_ALGORITHMS: readonly SignatureAlgorithm[] = [
  { der: ECDSA_SHA256, keyType: 'ec', digest: 'sha256' },
  { der: seq(oid('1.2.840.10045.4.3.3')), keyType: 'ec', digest: 'sha384' },
  { der: seq(oid('1.2.840.10045.4.3.4')), keyType: 'ec', digest: 'sha512' },
  { der: RSA_SHA256, keyType: 'rsa', digest: 'sha256' },
  { der: seq(oid('1.2.840.113549.1.1.12'), nullValue()), keyType: 'rsa', digest: 'sha384' },
  { der: seq(oid('1.2.840.113549.1.1.13'), nullValue()), keyType: 'rsa', digest: 'sha512' },
  ...HASHES.map((hash) => ({ der: pss(hash), keyType: 'rsa' as const, digest: hash[2], saltLength: hash[1] })),
  { der: ED25519, keyType: 'ed25519', digest: null },
];
