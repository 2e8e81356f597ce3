import { children, readTlv, type Tlv } from './der.ts';
import { PkiError } from './error.ts';

/** The parts of a certificate in their encoded form (RFC 5280 §4.1). Trailing parts are not judged here. */
export interface DerFields {
  /** The signed part, the algorithm and the signature, if all are there. */
  readonly parts: readonly Tlv[];
  /** All fields of the signed part, in order. */
  readonly signed: readonly Tlv[];
  readonly serial: Tlv;
  readonly issuer: Tlv;
  readonly validity: Tlv;
  readonly notBefore: Tlv;
  readonly notAfter: Tlv;
  readonly subject: Tlv;
  /** SubjectPublicKeyInfo. */
  readonly publicKey: Tlv;
  /** SEQUENCE OF Extension. */
  readonly extensions: Tlv | undefined;
}

export function readFields(der: Buffer): DerFields {
  const parts = children(readTlv(der));
  if (!parts[0]) throw new PkiError('ERR_DER_SYNTAX', 'a certificate without content');
  const signed = children(parts[0]);
  const [serial, , issuer, validity, subject, publicKey] = signed[0]?.tag === 0xa0 ? signed.slice(1) : signed;
  if (!serial || !issuer || !validity || !subject || !publicKey) {
    throw new PkiError('ERR_DER_SYNTAX', 'a certificate lacks fields');
  }
  const [notBefore, notAfter] = children(validity);
  if (!notBefore || !notAfter) throw new PkiError('ERR_DER_SYNTAX', 'a certificate lacks its validity');
  const wrapper = signed.find(({ tag }) => tag === 0xa3);
  const extensions = wrapper && children(wrapper)[0];
  return { parts, signed, serial, issuer, validity, notBefore, notAfter, subject, publicKey, extensions };
}
