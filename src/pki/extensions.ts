import { children, PkiError, readOid, readTlv, TAG, type Tlv } from './der.ts';
import {
  decodeNames,
  type NameConstraints,
  type Names,
  NO_NAMES,
  nameDefect,
  readNameConstraints,
  requireGeneralNames,
} from './names.ts';

export const OID = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  crlDistributionPoints: '2.5.29.31',
  certificatePolicies: '2.5.29.32',
  policyMappings: '2.5.29.33',
  authorityKeyId: '2.5.29.35',
  policyConstraints: '2.5.29.36',
  extendedKeyUsage: '2.5.29.37',
  authorityInfoAccess: '1.3.6.1.5.5.7.1.1',
  commonName: '2.5.4.3',
  emailAddress: '1.2.840.113549.1.9.1',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  extensionRequest: '1.2.840.113549.1.9.14',
} as const;

/** Bits of the first byte of a key usage (RFC 5280 §4.2.1.3). */
export const DIGITAL_SIGNATURE = 0x80;
export const KEY_CERT_SIGN = 0x04;
export const CRL_SIGN = 0x02;

export interface Extension {
  readonly id: string;
  readonly critical: boolean;
  /** Whether the flag is encoded as DER requires. */
  readonly isFlagDer: boolean;
  /** The content of its OCTET STRING: DER by definition, anything in practice. */
  readonly value: Buffer;
}

/** What an authority key identifier says about the issuer. */
export interface AuthorityKeyId {
  /** Hex. */
  readonly keyId?: string | undefined;
  /** The name of the issuer's issuer, DER. */
  readonly issuer?: Buffer | undefined;
  /** Content octets of the issuer's serial number. */
  readonly serial?: Buffer | undefined;
}

export interface Extensions {
  readonly names: Names;
  readonly subjectKeyId: string | undefined;
  readonly authority: AuthorityKeyId;
  /** OIDs; empty when the extension is absent. */
  readonly extendedKeyUsage: readonly string[];
  /** First byte of the bits; undefined when the extension is absent, and then every use is allowed. */
  readonly keyUsage: number | undefined;
  readonly isCa: boolean;
  readonly pathLength: number | undefined;
  readonly nameConstraints: NameConstraints | undefined;
  /** OIDs of those that this project does not process and that therefore forbid the use of the certificate. */
  readonly unsupported: readonly string[];
  /** Why some implementation refuses an extension, a whole sentence part; undefined when none does. */
  readonly defect: string | undefined;
}

/** Key identifier, issuer, serial number: in this order, each optional. */
const AUTHORITY_TAGS: readonly number[] = [0x80, 0xa1, 0x82];
const NO_IDS: readonly string[] = Object.freeze([]);
const NO_AUTHORITY: AuthorityKeyId = Object.freeze({});
/** The values of nearly all certificates, of which thousands are held. */
const USAGES: readonly (readonly string[])[] = [
  [OID.serverAuth, OID.clientAuth],
  [OID.clientAuth, OID.serverAuth],
  [OID.clientAuth],
  [OID.serverAuth],
];

/**
 * Processed here, or without effect on the validity of a path. OpenSSL, BoringSSL and Go accept all of them as
 * critical.
 */
const SUPPORTED: ReadonlySet<string> = new Set([
  OID.keyUsage,
  OID.subjectAltName,
  OID.basicConstraints,
  OID.nameConstraints,
  OID.crlDistributionPoints,
  OID.certificatePolicies,
  OID.extendedKeyUsage,
]);
/** Go and BoringSSL process policy constraints even if they are not critical. */
const ALWAYS_UNSUPPORTED: ReadonlySet<string> = new Set([OID.policyConstraints]);
/** Go cannot read a certificate in which one of these is critical (RFC 5280 forbids it). */
const NEVER_CRITICAL: ReadonlySet<string> = new Set([OID.subjectKeyId, OID.authorityKeyId, OID.authorityInfoAccess]);
/** Not processed here, but Go or OpenSSL refuse the certificate when they are malformed. */
const SEQUENCES: ReadonlySet<string> = new Set([
  OID.crlDistributionPoints,
  OID.certificatePolicies,
  OID.policyMappings,
  OID.authorityInfoAccess,
]);

/** Reads the SEQUENCE OF Extension in certificates and in requests; throws ERR_DER_SYNTAX. */
export function extensionsIn(list: Tlv | undefined): Extension[] {
  if (!list) return [];
  return children(list).map((whole) => {
    const parts = children(whole);
    const [id, second] = parts;
    const value = parts.at(-1);
    if (!id || value?.tag !== TAG.octetString || parts.length > 3) {
      throw new PkiError('ERR_DER_SYNTAX', 'an extension is not an identifier, a flag and a value');
    }
    const flag = parts.length === 3 ? second : undefined;
    const critical = flag !== undefined && flag.content[0] !== 0;
    return { id: readOid(id), critical, isFlagDer: flag === undefined || isDerBoolean(flag), value: value.content };
  });
}

/** Never throws: what cannot be read is a defect, or ignored if no implementation reads it. */
export function readExtensions(extensions: readonly Extension[]): Extensions {
  const byId = new Map(extensions.map((extension) => [extension.id, extension]));
  const defects: string[] = [];
  const twice = extensions.find((extension) => byId.get(extension.id) !== extension);
  if (twice) defects.push(`the extension ${twice.id} is duplicated`);
  const odd = extensions.find(({ isFlagDer }) => !isFlagDer);
  if (odd) defects.push(`the extension ${odd.id} has a flag that is neither TRUE nor FALSE`);
  const marked = extensions.find(({ id, critical }) => critical && NEVER_CRITICAL.has(id));
  if (marked) defects.push(`the extension ${marked.id} is marked critical`);

  const read = <T>(id: string, how: (value: Tlv) => T): T | undefined => {
    const found = byId.get(id);
    if (!found) return undefined;
    try {
      return how(whole(found.value));
    } catch (error) {
      defects.push(`the extension ${id} is malformed: ${error instanceof Error ? error.message : 'not DER'}`);
      return undefined;
    }
  };
  for (const id of SEQUENCES) read(id, sequencesIn);
  read(OID.certificatePolicies, requireDistinctPolicies);
  const basic = read(OID.basicConstraints, readBasicConstraints);
  const names = read(OID.subjectAltName, readNames);
  if (names?.defect) defects.push(names.defect);
  // Envoy refuses it, on a leaf too.
  if (basic && !basic.ca && basic.pathLength !== undefined) {
    defects.push('its basic constraints have a path length without CA:TRUE');
  }
  const isNameless = byId.get(OID.subjectAltName)?.critical && names?.isEmpty;
  return {
    names: names?.names ?? NO_NAMES,
    subjectKeyId: read(OID.subjectKeyId, readOctets)?.toString('hex'),
    authority: read(OID.authorityKeyId, readAuthority) ?? NO_AUTHORITY,
    extendedKeyUsage: read(OID.extendedKeyUsage, readUsages) ?? NO_IDS,
    keyUsage: read(OID.keyUsage, readKeyUsage),
    isCa: basic?.ca ?? false,
    pathLength: basic?.pathLength,
    nameConstraints: read(OID.nameConstraints, readNameConstraints),
    unsupported: unsupportedIn(extensions, isNameless ? OID.subjectAltName : undefined),
    defect: defects[0],
  };
}

function unsupportedIn(extensions: readonly Extension[], also: string | undefined): readonly string[] {
  const ids = extensions
    .filter(({ id, critical }) => (critical && !SUPPORTED.has(id)) || ALWAYS_UNSUPPORTED.has(id) || id === also)
    .map(({ id }) => id);
  return ids.length === 0 ? NO_IDS : ids;
}

/** The one value in these bytes, or ERR_DER_SYNTAX. */
export function whole(bytes: Buffer): Tlv {
  const value = readTlv(bytes);
  if (value.raw.length !== bytes.length) throw new PkiError('ERR_DER_SYNTAX', 'extra bytes follow its value');
  return value;
}

/** The items of a SEQUENCE. */
function itemsIn(value: Tlv): Tlv[] {
  if (value.tag !== TAG.sequence) throw new PkiError('ERR_DER_SYNTAX', 'it is not a SEQUENCE');
  return children(value);
}

/** The items of a SEQUENCE with at least one item. */
function someIn(value: Tlv): Tlv[] {
  const items = itemsIn(value);
  if (items.length === 0) throw new PkiError('ERR_DER_SYNTAX', 'it is empty');
  return items;
}

const sequencesIn = (value: Tlv): void => {
  for (const item of someIn(value)) itemsIn(item);
};

/** Go and BoringSSL refuse a policy that is named twice. */
function requireDistinctPolicies(value: Tlv): void {
  const ids = someIn(value).flatMap((policy) => itemsIn(policy).slice(0, 1).map(readOid));
  if (new Set(ids).size < ids.length) throw new PkiError('ERR_DER_SYNTAX', 'a policy is duplicated');
}

const isDerBoolean = ({ tag, content }: Tlv): boolean =>
  tag === TAG.boolean && content.length === 1 && (content[0] === 0 || content[0] === 0xff);

function readOctets(value: Tlv): Buffer {
  if (value.tag !== TAG.octetString) throw new PkiError('ERR_DER_SYNTAX', 'it is not an OCTET STRING');
  return value.content;
}

function readBasicConstraints(value: Tlv): { ca: boolean; pathLength: number | undefined } {
  const items = itemsIn(value);
  const flag = items[0]?.tag === TAG.boolean ? items.shift() : undefined;
  const length = items.shift();
  if (items.length > 0 || (length && length.tag !== TAG.integer)) {
    throw new PkiError('ERR_DER_SYNTAX', 'it is not a flag and a path length');
  }
  if (flag && !isDerBoolean(flag)) {
    throw new PkiError('ERR_DER_SYNTAX', 'its flag is neither TRUE nor FALSE');
  }
  const [first = 0x80] = length?.content ?? [];
  // Four bytes hold every length that a chain here may have.
  if (length && (first >= 0x80 || length.content.length > 4)) {
    throw new PkiError('ERR_DER_SYNTAX', 'its path length is not a usable number');
  }
  return { ca: flag?.content[0] === 0xff, pathLength: length?.content.readUIntBE(0, length.content.length) };
}

function readKeyUsage({ tag, content }: Tlv): number {
  const [unused = 8, first = 0] = content;
  const last = content.at(-1) ?? 0;
  const isPadded = content.length < 2 ? unused !== 0 : last % (1 << unused) !== 0;
  if (tag !== TAG.bitString || unused > 7 || isPadded) throw new PkiError('ERR_DER_SYNTAX', 'it is not a BIT STRING');
  return first;
}

function readUsages(value: Tlv): readonly string[] {
  const usage = someIn(value).map(readOid);
  return USAGES.find((known) => known.length === usage.length && known.every((id, at) => id === usage[at])) ?? usage;
}

export function readAuthority(value: Tlv): AuthorityKeyId {
  const items = itemsIn(value);
  const places = items.map(({ tag }) => AUTHORITY_TAGS.indexOf(tag));
  if (!places.every((place, at) => place > (places[at - 1] ?? -1))) {
    throw new PkiError('ERR_DER_SYNTAX', 'it is not a key identifier, a name and a serial number');
  }
  const part = (tag: number) => items.find((item) => item.tag === tag);
  const issuer = part(0xa1);
  const names = issuer ? children(issuer) : [];
  requireGeneralNames(names);
  const directoryName = names.find(({ tag }) => tag === 0xa4);
  return {
    keyId: part(0x80)?.content.toString('hex'),
    issuer: directoryName?.content,
    serial: part(0x82)?.content,
  };
}

function readNames(value: Tlv): { names: Names; isEmpty: boolean; defect: string | undefined } {
  requireGeneralNames(itemsIn(value));
  const names = decodeNames(value);
  const { uris, dns, ips, emails } = names;
  return { names, isEmpty: uris.length + dns.length + ips.length + emails.length === 0, defect: nameDefect(names) };
}
