import { type KeyObject, sign } from 'node:crypto';
import { Certificate } from '../../src/pki/certificate.ts';
import { bitString, children, readTlv, seq } from '../../src/pki/der.ts';

/**
 * The certificate with other fields, DER, signed again with its issuer's key. The fields of what is signed are in their
 * order: version, serial number, algorithm, issuer, validity, subject, public key, extensions. `algorithm` is the one
 * beside the signature.
 */
export function reworked(
  { der }: Certificate,
  issuerKey: KeyObject,
  change: (fields: readonly Buffer[]) => readonly Buffer[],
  algorithm?: Buffer,
): Certificate {
  const [signed, named] = children(readTlv(der));
  if (!signed || !named) throw new TypeError('a certificate has three parts');
  const body = seq(...change(children(signed).map(({ raw }) => raw)));
  return Certificate.fromDer(seq(body, algorithm ?? named.raw, bitString(sign('sha256', body, issuerKey))));
}
