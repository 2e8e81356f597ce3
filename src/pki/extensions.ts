import { children, readOid, readTlv, TAG, type Tlv } from './der.ts';
import { decodeNames, type Names, NO_NAMES } from './names.ts';

export const OID = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  commonName: '2.5.4.3',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  anyExtendedKeyUsage: '2.5.29.37.0',
  extensionRequest: '1.2.840.113549.1.9.14',
} as const;

export interface Extensions {
  readonly names: Names;
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
  readonly extendedKeyUsage: readonly string[];
}

/** One extension as it stands; `id` and `value`, what is in its OCTET STRING, where they are there. */
export interface Extension {
  readonly whole: Tlv;
  readonly parts: readonly Tlv[];
  readonly id: string | undefined;
  readonly value: Tlv | undefined;
}

const NO_USAGE: readonly string[] = Object.freeze([]);
/** Of nearly all certificates, which are held by the thousand. */
const USAGES: readonly (readonly string[])[] = [
  [OID.serverAuth, OID.clientAuth],
  [OID.clientAuth, OID.serverAuth],
  [OID.clientAuth],
  [OID.serverAuth],
];

const shared = (usage: readonly string[]): readonly string[] =>
  USAGES.find((known) => known.length === usage.length && known.every((id, at) => id === usage[at])) ?? usage;

/** Of the SEQUENCE OF Extension that stands in certificates and in requests. */
export function extensionsIn(list: Tlv | undefined): Extension[] {
  if (!list) return [];
  return children(list).map((whole) => {
    const parts = children(whole);
    const [id] = parts;
    const value = parts.at(-1);
    const isWhole = id && value?.tag === TAG.octetString;
    return isWhole
      ? { whole, parts, id: readOid(id), value: readTlv(value.content) }
      : { whole, parts, id: undefined, value: undefined };
  });
}

export function readExtensions(extensions: readonly Extension[]): Extensions {
  const values = new Map(extensions.map(({ id, value }) => [id, value]));
  const san = values.get(OID.subjectAltName);
  const aki = values.get(OID.authorityKeyId);
  const eku = values.get(OID.extendedKeyUsage);
  return {
    names: san ? decodeNames(san) : NO_NAMES,
    subjectKeyId: values.get(OID.subjectKeyId)?.content.toString('hex'),
    authorityKeyId:
      aki &&
      children(aki)
        .find(({ tag }) => tag === 0x80)
        ?.content.toString('hex'),
    extendedKeyUsage: eku ? shared(children(eku).map(readOid)) : NO_USAGE,
  };
}
