import { explicit, int, nullValue, oid, seq } from './der.ts';

/** AlgorithmIdentifier of the signatures that are made here; DER, RFC 5758 §3.2 and 4055 §5. */
export const ECDSA_SHA256 = seq(oid('1.2.840.10045.4.3.2'));
/** RFC 8410 §3. */
export const ED25519 = seq(oid('1.3.101.112'));
export const RSA_SHA256 = seq(oid('1.2.840.113549.1.1.11'), nullValue());

const HASHES = [
  ['2.16.840.1.101.3.4.2.1', 32],
  ['2.16.840.1.101.3.4.2.2', 48],
  ['2.16.840.1.101.3.4.2.3', 64],
] as const;

/** RSASSA-PSS with one hash throughout and a salt of its length (RFC 4055 §3.1). */
const pss = ([id, length]: (typeof HASHES)[number]): Buffer => {
  const hash = seq(oid(id), nullValue());
  const mask = seq(oid('1.2.840.113549.1.1.8'), hash);
  return seq(oid('1.2.840.113549.1.1.10'), seq(explicit(0, hash), explicit(1, mask), explicit(2, int(length))));
};

/** AlgorithmIdentifiers, DER, of the signatures that OpenSSL, BoringSSL and Go all verify. SHA-1 is not among them. */
export const SIGNATURE_ALGORITHMS: readonly Buffer[] = [
  ECDSA_SHA256,
  seq(oid('1.2.840.10045.4.3.3')),
  seq(oid('1.2.840.10045.4.3.4')),
  RSA_SHA256,
  seq(oid('1.2.840.113549.1.1.12'), nullValue()),
  seq(oid('1.2.840.113549.1.1.13'), nullValue()),
  ...HASHES.map(pss),
  ED25519,
];
