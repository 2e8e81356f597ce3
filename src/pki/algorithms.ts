import { nullValue, oid, seq } from './der.ts';

/** AlgorithmIdentifier of the signatures that are made here and read without OpenSSL; DER, RFC 5758 §3.2 and 4055 §5. */
export const ECDSA_SHA256 = seq(oid('1.2.840.10045.4.3.2'));
export const RSA_SHA256 = seq(oid('1.2.840.113549.1.1.11'), nullValue());
