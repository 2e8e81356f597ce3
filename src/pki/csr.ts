import { sign } from 'node:crypto';
import {
  bitString,
  bool,
  ECDSA_SHA256,
  explicit,
  formatPem,
  int,
  octetString,
  oid,
  PkiError,
  RSA_SHA256,
  seq,
  set,
  time,
  utf8,
} from './der.ts';
import { OID } from './extensions.ts';
import { PrivateKey } from './key.ts';
import { encodeNames } from './names.ts';

export interface CsrNames {
  readonly uris?: readonly string[];
  readonly dns?: readonly string[];
  /** At most 64 characters (RFC 5280, ub-common-name). */
  readonly commonName?: string;
}

const LONGEST_COMMON_NAME = 64;

/**
 * A PKCS#10 request, DER, signed with SHA-256. The names are in the SAN extension, which is critical when there is no
 * common name: RFC 5280 requires it, and some CAs check it.
 */
export function createCsr(key: PrivateKey, names: CsrNames): Buffer {
  const info = seq(int(0), subject(names.commonName), key.spki, explicit(0, ...attributes(names)));
  const { algorithm, signature } = signed(info, key);
  return seq(info, algorithm, bitString(signature));
}

function subject(commonName: string | undefined): Buffer {
  if (commonName === undefined) return seq();
  if (commonName.length === 0 || [...commonName].length > LONGEST_COMMON_NAME) {
    throw new PkiError(
      'ERR_CSR_NAME',
      `a common name has 1 to ${LONGEST_COMMON_NAME} characters, not ${commonName.length}`,
    );
  }
  return seq(set(seq(oid(OID.commonName), utf8(commonName))));
}

function attributes({ uris = [], dns = [], commonName }: CsrNames): Buffer[] {
  if (uris.length + dns.length === 0) return [];
  const critical = commonName === undefined ? [bool(true)] : [];
  const san = seq(oid(OID.subjectAltName), ...critical, octetString(encodeNames({ uris, dns })));
  return [seq(oid(OID.extensionRequest), set(seq(san)))];
}

/** Signs as the key's kind allows: ECDSA or RSA, both over SHA-256. */
export function signed(content: Buffer, key: PrivateKey): { algorithm: Buffer; signature: Buffer } {
  const { type } = key.keyType;
  if (type === 'other') throw new PkiError('ERR_KEY_TYPE', `a key of type ${key.keyType.name} cannot sign a request`);
  const algorithm = type === 'ec' ? ECDSA_SHA256 : RSA_SHA256;
  return { algorithm, signature: sign('sha256', content, key.keyObject) };
}

/** A new key and a self-signed certificate that nobody verifies, both PEM: for uses where any pair will do. */
export function throwawayPair(): { readonly key: string; readonly cert: string } {
  const key = PrivateKey.generate();
  const name = seq(set(seq(oid(OID.commonName), utf8('throwaway'))));
  const validity = seq(time(0), time(Date.UTC(2049, 0, 1)));
  const body = seq(explicit(0, int(2)), int(1), ECDSA_SHA256, name, validity, name, key.spki);
  const { algorithm, signature } = signed(body, key);
  return { key: key.toPem(), cert: formatPem('CERTIFICATE', seq(body, algorithm, bitString(signature))) };
}
