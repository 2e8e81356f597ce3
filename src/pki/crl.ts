import { constants, createHash, verify } from 'node:crypto';
import type { Certificate } from './certificate.ts';
import {
  children,
  derIn,
  formatPem,
  PEM_LIMITS,
  PkiError,
  parsePem,
  readTime,
  readTlv,
  SIGNATURE_ALGORITHMS,
  TAG,
  type Tlv,
} from './der.ts';
import {
  type AuthorityKeyId,
  CRL_SIGN,
  type Extension,
  extensionsIn,
  OID,
  readAuthority,
  whole,
} from './extensions.ts';

/** A certificate revocation list (RFC 5280 §5). Immutable; equality is by `fingerprint`. */
export class Crl {
  /** One block with lines of 64 columns. */
  readonly pem: string;
  /** SHA-256 of the DER, hex. */
  readonly fingerprint: string;
  /** Epoch ms. */
  readonly thisUpdate: number;
  /** Epoch ms; undefined: it never says when the next one comes. */
  readonly nextUpdate: number | undefined;
  /** Its number, if it has one. */
  readonly number: bigint | undefined;
  /** Why Envoy does not load it, or refuses every upstream by it, as a part of a sentence about it. */
  readonly defect: string | undefined;
  readonly #issuer: Buffer;
  readonly #authority: AuthorityKeyId;
  /** By fingerprint of the authority. */
  readonly #signedBy = new Map<string, boolean>();

  private constructor(der: Buffer) {
    const fields = readFields(der);
    const extensions = readExtensions(fields);
    this.pem = formatPem('X509 CRL', der);
    this.fingerprint = createHash('sha256').update(der).digest('hex');
    this.thisUpdate = readTime(fields.thisUpdate);
    this.nextUpdate = fields.nextUpdate && readTime(fields.nextUpdate);
    this.number = extensions.number;
    this.defect = fieldDefect(fields) ?? extensions.defect ?? entriesDefect(fields);
    this.#issuer = Buffer.from(fields.issuer.raw);
    this.#authority = extensions.authority;
  }

  static fromDer(der: Buffer): Crl {
    return new Crl(der);
  }

  isNamedAfter(authority: Certificate): boolean {
    return this.#issuer.equals(authority.subjectDer);
  }

  /** Whether a reader that compares names and key identifiers takes it for the list of this authority. */
  seemsToBeOf(authority: Certificate): boolean {
    return this.isNamedAfter(authority) && authority.fits(this.#authority);
  }

  /** Why Envoy refuses what the authority of its name has issued, as a part of a sentence about it. */
  refusedFor(authority: Certificate): string | undefined {
    if (this.defect !== undefined) return this.defect;
    if (!this.seemsToBeOf(authority)) return 'its authority key identifier names another key';
    if (!authority.allows(CRL_SIGN)) return 'the key usage of that CA lacks cRLSign';
    return this.#isSignedBy(authority) ? undefined : 'it is signed by another key than that of the CA';
  }

  isCurrent(now: number): boolean {
    return this.thisUpdate <= now && (this.nextUpdate === undefined || now < this.nextUpdate);
  }

  #isSignedBy(authority: Certificate): boolean {
    const is = this.#signedBy.get(authority.fingerprint) ?? this.#wasSignedWith(authority);
    this.#signedBy.set(authority.fingerprint, is);
    return is;
  }

  #wasSignedWith(authority: Certificate): boolean {
    const { signed, parts } = readFields(derIn(this.pem));
    const algorithm = SIGNATURE_ALGORITHMS.find(({ der }) => parts[1]?.raw.equals(der));
    try {
      const { publicKey } = authority;
      if (!algorithm || publicKey.asymmetricKeyType !== algorithm.keyType) return false;
      const { digest, saltLength } = algorithm;
      const padding = saltLength === undefined ? {} : { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength };
      return verify(digest, signed.raw, { key: publicKey, ...padding }, parts[2]?.content.subarray(1) ?? Buffer.of());
    } catch {
      return false;
    }
  }
}

/** All CRLs of a PEM text, in their order, without duplicates; other blocks are ignored. */
export function parseCrls(pem: string): Crl[] {
  const blocks = pem.trim() === '' ? [] : parsePem(pem, PEM_LIMITS);
  const crls = blocks.filter(({ label }) => label === 'X509 CRL').map(({ der }) => Crl.fromDer(der));
  return [...new Map(crls.map((crl) => [crl.fingerprint, crl])).values()];
}

export const formatCrls = (crls: readonly Crl[]): string => crls.map(({ pem }) => pem).join('');

interface CrlParts {
  /** The signed part, the algorithm and the signature, if all are there. */
  readonly parts: readonly Tlv[];
  readonly signed: Tlv;
  readonly version: Tlv | undefined;
  readonly algorithm: Tlv | undefined;
  readonly issuer: Tlv;
  readonly thisUpdate: Tlv;
  readonly nextUpdate: Tlv | undefined;
  readonly entries: readonly Tlv[];
  readonly extensions: readonly Extension[];
  /** What is left, in no place where something belongs. */
  readonly rest: readonly Tlv[];
}

function readFields(der: Buffer): CrlParts {
  const list = readTlv(der);
  const parts = children(list);
  const [signed] = parts;
  if (list.tag !== TAG.sequence || list.raw.length !== der.length || signed?.tag !== TAG.sequence) {
    throw new PkiError('ERR_DER_SYNTAX', 'a CRL without content');
  }
  const rest = children(signed);
  const take = (...tags: number[]) => (tags.includes(rest[0]?.tag ?? -1) ? rest.shift() : undefined);
  const version = take(TAG.integer);
  const algorithm = take(TAG.sequence);
  const issuer = take(TAG.sequence);
  const thisUpdate = take(TAG.utcTime, TAG.generalizedTime);
  if (!issuer || !thisUpdate) throw new PkiError('ERR_DER_SYNTAX', 'a CRL lacks fields');
  const nextUpdate = take(TAG.utcTime, TAG.generalizedTime);
  const entries = take(TAG.sequence);
  const wrapper = take(0xa0);
  return {
    parts,
    signed,
    version,
    algorithm,
    issuer,
    thisUpdate,
    nextUpdate,
    rest,
    entries: entries ? children(entries) : [],
    extensions: wrapper ? someExtensions(whole(wrapper.content)) : [],
  };
}

/** Envoy does not load an empty list. */
function someExtensions(list: Tlv): Extension[] {
  if (list.tag !== TAG.sequence || list.content.length === 0) {
    throw new PkiError('ERR_DER_SYNTAX', 'a list of extensions is empty');
  }
  return extensionsIn(list);
}

const CRL_NUMBER = '2.5.29.20';
const REASON_CODE = '2.5.29.21';
const DELTA_CRL = '2.5.29.27';
const ISSUING_DISTRIBUTION_POINT = '2.5.29.28';
const CERTIFICATE_ISSUER = '2.5.29.29';
const REMOVE_FROM_CRL = 8;
const ENUMERATED = 0x0a;

function fieldDefect({ parts, version, algorithm, issuer, entries, extensions, rest }: CrlParts): string | undefined {
  if (version && !(version.content.length === 1 && version.content[0] === 1)) return 'its version is not 2';
  if (!version && (extensions.length > 0 || entries.some((entry) => children(entry).length > 2))) {
    return 'it has extensions, which need version 2';
  }
  if (rest.length > 0 || parts.length !== 3) return 'it has fields that do not belong to a CRL';
  if (!algorithm || !parts[1]?.raw.equals(algorithm.raw)) return 'it names two different signature algorithms';
  if (!SIGNATURE_ALGORITHMS.some(({ der }) => algorithm.raw.equals(der))) {
    return 'it is signed with an algorithm that is weak or not common';
  }
  if (parts[2]?.tag !== TAG.bitString || parts[2].content[0] !== 0) return 'its signature ends within a byte';
  const isEmpty = children(issuer).some((set) => set.tag !== TAG.set || set.content.length === 0);
  return isEmpty ? 'a part of its issuer is empty' : undefined;
}

function readExtensions({ extensions }: CrlParts): {
  readonly authority: AuthorityKeyId;
  readonly number: bigint | undefined;
  readonly defect: string | undefined;
} {
  const contentOf = (id: string) => extensions.find((one) => one.id === id)?.value;
  try {
    const [keyId, number] = [contentOf(OID.authorityKeyId), contentOf(CRL_NUMBER)];
    return {
      authority: keyId ? readAuthority(whole(keyId)) : {},
      number: number && BigInt(`0x${integerIn(whole(number)).toString('hex')}`),
      defect: extensionsDefect(extensions),
    };
  } catch (error) {
    const why = error instanceof PkiError ? error.message : 'not DER';
    return { authority: {}, number: undefined, defect: `one of its extensions is malformed: ${why}` };
  }
}

function extensionsDefect(extensions: readonly Extension[]): string | undefined {
  const ids = extensions.map(({ id }) => id);
  if (ids.includes(DELTA_CRL)) return 'it is a delta CRL, by which Envoy refuses every upstream; use the complete CRL';
  if (ids.includes(ISSUING_DISTRIBUTION_POINT)) {
    return 'its issuing distribution point limits it to a part of the certificates';
  }
  return oddIn(extensions);
}

function oddIn(extensions: readonly Extension[]): string | undefined {
  const ids = extensions.map(({ id }) => id);
  const twice = ids.find((id, at) => ids.indexOf(id) !== at);
  if (twice !== undefined) return `the extension ${twice} is duplicated`;
  const critical = extensions.find((one) => one.critical);
  if (critical) return `it has the extension ${critical.id}, which is critical and not supported`;
  const odd = extensions.find(({ isFlagDer }) => !isFlagDer);
  return odd && `the extension ${odd.id} has a flag that is neither TRUE nor FALSE`;
}

function entriesDefect({ entries }: CrlParts): string | undefined {
  for (const entry of entries) {
    try {
      const why = entryDefect(entry);
      if (why !== undefined) return `an entry cannot be used: ${why}`;
    } catch (error) {
      return `an entry is malformed: ${error instanceof PkiError ? error.message : 'not DER'}`;
    }
  }
  return undefined;
}

function entryDefect(entry: Tlv): string | undefined {
  const [serial, date, list, ...more] = children(entry);
  if (entry.tag !== TAG.sequence || !serial || !date || more.length > 0) return 'it is not a serial number and a date';
  integerIn(serial);
  readTime(date);
  if (!list) return undefined;
  const extensions = someExtensions(list);
  if (extensions.some(({ id }) => id === CERTIFICATE_ISSUER)) {
    return `it is of another issuer (extension ${CERTIFICATE_ISSUER})`;
  }
  const reason = extensions.find(({ id }) => id === REASON_CODE);
  if (reason) {
    const { tag, content } = whole(reason.value);
    if (tag !== ENUMERATED || content.length !== 1) return 'its reason code is malformed';
    if (content[0] === REMOVE_FROM_CRL) return 'it removes a certificate, which only a delta CRL can do';
  }
  return oddIn(extensions);
}

/** The content of a non-negative INTEGER without unneeded bytes. */
function integerIn({ tag, content }: Tlv): Buffer {
  const [first = 0x80, second = 0x80] = content;
  if (tag !== TAG.integer || first >= 0x80 || (first === 0 && content.length > 1 && second < 0x80)) {
    throw new PkiError('ERR_DER_SYNTAX', 'a number is negative or has more bytes than needed');
  }
  return content;
}
