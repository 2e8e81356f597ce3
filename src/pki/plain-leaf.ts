import { type KeyObject, verify, type X509Certificate } from 'node:crypto';
import { ECDSA_SHA256, RSA_SHA256 } from './algorithms.ts';
import { bool, children, explicit, int, readOid, TAG, type Tlv } from './der.ts';
import { type Extension, OID } from './extensions.ts';
import type { Fields } from './fields.ts';
import { isP256 } from './key-type.ts';

/** What only OpenSSL tells of other certificates, to the letter as it does. */
export type PlainLeaf = Readonly<Pick<X509Certificate, 'serialNumber' | 'subject' | 'issuer'>>;

/** Attributes of names, as OpenSSL calls them. */
const ATTRIBUTES: Readonly<Record<string, string>> = {
  [OID.commonName]: 'CN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
  '2.5.4.45': 'x500UniqueIdentifier',
};
/** What OpenSSL prints as it stands. */
const TEXT = /^[A-Za-z0-9]([A-Za-z0-9 ._:/-]*[A-Za-z0-9])?$/;
const PRINTABLE = /^[\x20-\x7e]+$/;
const VERSION_3 = explicit(0, int(2));
const TRUE = bool(true);
/** Of the first byte of a key usage. */
export const KEY_CERT_SIGN = 0x04;
const USAGES: readonly string[] = [OID.serverAuth, OID.clientAuth, OID.anyExtendedKeyUsage];

const isText = ({ tag }: Tlv): boolean => tag === TAG.printable || tag === TAG.utf8;
const isFilled = ({ content }: Tlv): boolean => content.length > 0;

/** The extensions of a plain leaf, each with the values that all readers read alike. */
const PLAIN: Readonly<Record<string, (value: Tlv) => boolean>> = {
  [OID.subjectKeyId]: (value) => value.tag === TAG.octetString && isFilled(value),
  [OID.authorityKeyId](value) {
    const [id, ...more] = itemsOf(value);
    return id?.tag === 0x80 && isFilled(id) && more.length === 0;
  },
  [OID.basicConstraints]: (value) => value.tag === TAG.sequence && !isFilled(value),
  [OID.keyUsage]({ tag, content: [unused = 8, bits = 0, ...more] }) {
    if (tag !== TAG.bitString || unused > 7 || more.length > 0) return false;
    const endsAsDerDemands = bits % (1 << unused) === 0 && (bits & (1 << unused)) !== 0;
    return endsAsDerDemands && (bits & KEY_CERT_SIGN) === 0;
  },
  [OID.extendedKeyUsage](value) {
    const usages = itemsOf(value);
    return usages.length > 0 && usages.every((usage) => usage.tag === TAG.oid && USAGES.includes(readOid(usage)));
  },
  [OID.subjectAltName](value) {
    const names = itemsOf(value);
    return names.length > 0 && names.every(isPlainName);
  },
};

/**
 * A leaf as meshes issue them: version 3, a P-256 key, SHA-256 with ECDSA or RSA, short plain names, only extensions
 * that are known here, in DER to the letter. Undefined for whatever else and at the least doubt: OpenSSL reads that,
 * which takes three times as long.
 */
export function plainLeafIn(fields: Fields, extensions: readonly Extension[]): PlainLeaf | undefined {
  const { parts, signed, validity, notBefore, notAfter, publicKey } = fields;
  const [version, serial, algorithm] = signed;
  const [, outer, signature] = parts;
  if (parts.length !== 3 || signed.length !== 8 || !serial || !algorithm || !outer || !signature) return undefined;
  if (!version?.raw.equals(VERSION_3) || signed[7]?.tag !== 0xa3) return undefined;
  if (!(algorithm.raw.equals(ECDSA_SHA256) || algorithm.raw.equals(RSA_SHA256)) || !outer.raw.equals(algorithm.raw)) {
    return undefined;
  }
  if (signature.tag !== TAG.bitString || signature.content[0] !== 0 || signature.content.length < 2) return undefined;
  if (validity.tag !== TAG.sequence || validity.content.length !== notBefore.raw.length + notAfter.raw.length) {
    return undefined;
  }
  if (!isP256(publicKey.raw) || !areSequences(fields) || !arePlain(signed[7], extensions)) return undefined;
  const serialNumber = serialIn(serial);
  const subject = nameIn(fields.subject);
  const issuer = nameIn(fields.issuer);
  return serialNumber === undefined || subject === undefined || !issuer ? undefined : { serialNumber, subject, issuer };
}

/** Whether the key made the signature over a plain leaf, which names the algorithm. */
export function wasSignedBy({ parts: [signed, algorithm, signature] }: Fields, key: KeyObject): boolean {
  if (!signed || !algorithm || !signature) return false;
  const type = algorithm.raw.equals(ECDSA_SHA256) ? 'ec' : 'rsa';
  return key.asymmetricKeyType === type && verify('sha256', signed.raw, key, signature.content.subarray(1));
}

const areSequences = ({ parts, issuer, subject, publicKey }: Fields): boolean =>
  [parts[0], issuer, subject, publicKey].every((one) => one?.tag === TAG.sequence);

function arePlain(wrapper: Tlv, extensions: readonly Extension[]): boolean {
  const [list, ...more] = children(wrapper);
  const seen = new Set(extensions.map(({ id }) => id));
  if (list?.tag !== TAG.sequence || more.length > 0 || seen.size === 0 || seen.size < extensions.length) return false;
  return extensions.every(({ whole, id, parts, value }) => {
    const [, critical, ...rest] = parts;
    if (whole.tag !== TAG.sequence || !value || !id) return false;
    if (parts.length === 3 && !(critical?.raw.equals(TRUE) && rest.length === 1)) return false;
    if (parts.length > 3 || value.raw.length !== parts.at(-1)?.content.length) return false;
    return PLAIN[id]?.(value) === true;
  });
}

const itemsOf = (value: Tlv): Tlv[] => (value.tag === TAG.sequence ? children(value) : []);

function isPlainName({ tag, content }: Tlv): boolean {
  if (tag === 0x87) return content.length === 4 || content.length === 16;
  return (tag === 0x81 || tag === 0x82 || tag === 0x86) && PRINTABLE.test(content.toString('latin1'));
}

/** Positive and not padded. */
function serialIn({ tag, content }: Tlv): string | undefined {
  const [first = 0x80, second = 0] = content;
  const isPlain = tag === TAG.integer && (first === 0 ? second >= 0x80 : first < 0x80);
  return isPlain
    ? content
        .subarray(first === 0 ? 1 : 0)
        .toString('hex')
        .toUpperCase()
    : undefined;
}

/** One attribute each; empty for a name of none. */
function nameIn(name: Tlv): string | undefined {
  const lines: string[] = [];
  for (const set of children(name)) {
    const [attribute, ...others] = children(set);
    if (set.tag !== TAG.set || attribute?.tag !== TAG.sequence || others.length > 0) return undefined;
    const [type, text, ...more] = children(attribute);
    if (type?.tag !== TAG.oid || !text || more.length > 0 || !isText(text)) return undefined;
    const label = ATTRIBUTES[readOid(type)];
    const value = text.content.toString('latin1');
    if (!label || !TEXT.test(value)) return undefined;
    lines.push(`${label}=${value}`);
  }
  return lines.join('\n');
}
