/** ASN.1 tags in DER, for the few types that certificates and requests consist of. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8: 0x0c,
  numeric: 0x12,
  printable: 0x13,
  t61: 0x14,
  ia5: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmp: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

type Bytes = Uint8Array;

export function tlv(tag: number, ...contents: Bytes[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content]);
}

function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  const digits: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return Buffer.from([0x80 | digits.length, ...digits]);
}

export const seq = (...items: Bytes[]): Buffer => tlv(TAG.sequence, ...items);
/** SET OF: sorted, as DER requires. */
export const set = (...items: Bytes[]): Buffer => tlv(TAG.set, ...items.map(Buffer.from).sort(Buffer.compare));
export const bool = (value: boolean): Buffer => tlv(TAG.boolean, Buffer.from([value ? 0xff : 0]));
export const nullValue = (): Buffer => tlv(TAG.null);
export const utf8 = (text: string): Buffer => tlv(TAG.utf8, Buffer.from(text, 'utf8'));
export const octetString = (content: Bytes): Buffer => tlv(TAG.octetString, content);
export const bitString = (content: Bytes, unusedBits = 0): Buffer =>
  tlv(TAG.bitString, Buffer.from([unusedBits]), content);
/** `[n] IMPLICIT` over a primitive type: its content without tag and length. */
export const context = (n: number, content: Bytes): Buffer => tlv(0x80 | n, content);
/** `[n]` constructed: EXPLICIT over one item, IMPLICIT over a SEQUENCE or SET when given its items. */
export const explicit = (n: number, ...items: Bytes[]): Buffer => tlv(0xa0 | n, ...items);

/** A non-negative INTEGER, from a number or from big-endian bytes (a serial number). */
export function int(value: number | bigint | Bytes): Buffer {
  let bytes: Buffer;
  if (value instanceof Uint8Array) bytes = Buffer.from(value);
  else {
    const hex = value.toString(16);
    bytes = Buffer.from(hex.length % 2 ? `0${hex}` : hex, 'hex');
  }
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  bytes = bytes.subarray(start);
  const first = bytes[0] ?? 0;
  return tlv(TAG.integer, ...(bytes.length === 0 || first >= 0x80 ? [Buffer.from([0])] : []), bytes);
}

export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const digits = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) digits.unshift(0x80 | (left % 128));
    bytes.push(...digits);
  }
  return tlv(TAG.oid, Buffer.from(bytes));
}

/** UTCTime to 2049, GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5); whole seconds, rounded down. */
export function time(epochMs: number): Buffer {
  const text = new Date(epochMs).toISOString().replace(/[-:T]|\.\d+/g, '');
  const year = Number(text.slice(0, 4));
  return year < 2050
    ? tlv(TAG.utcTime, Buffer.from(text.slice(2), 'latin1'))
    : tlv(TAG.generalizedTime, Buffer.from(text, 'latin1'));
}

/** One value as read: `raw` includes tag and length, `content` does not. */
export interface Tlv {
  readonly tag: number;
  readonly content: Buffer;
  readonly raw: Buffer;
}

/** Reads the value that starts at `offset`; throws ERR_DER_SYNTAX on anything that is not definite-length DER. */
export function readTlv(bytes: Buffer, offset = 0): Tlv {
  const tag = bytes[offset];
  const first = bytes[offset + 1];
  if (tag === undefined || first === undefined) throw new PkiError('ERR_DER_SYNTAX', 'DER ends within a value');
  if ((tag & 0x1f) === 0x1f) throw new PkiError('ERR_DER_SYNTAX', 'DER has a tag of more than one byte');
  let start = offset + 2;
  let length = first;
  if (first >= 0x80) {
    const digits = first & 0x7f;
    // Four bytes of length are 4 GiB: more than any input here may have.
    if (digits === 0 || digits > 4) throw new PkiError('ERR_DER_SYNTAX', 'DER has an unusable length');
    if (start + digits > bytes.length) throw new PkiError('ERR_DER_SYNTAX', 'DER ends within a length');
    length = bytes.readUIntBE(start, digits);
    if (length < 0x80 || length < 256 ** (digits - 1)) {
      throw new PkiError('ERR_DER_SYNTAX', 'DER has a length in more bytes than needed');
    }
    start += digits;
  }
  if (start + length > bytes.length) throw new PkiError('ERR_DER_SYNTAX', 'DER is cut short');
  return { tag, content: bytes.subarray(start, start + length), raw: bytes.subarray(offset, start + length) };
}

/** The values inside a SEQUENCE, SET or constructed context tag. */
export function children(parent: Tlv): Tlv[] {
  const items: Tlv[] = [];
  for (let offset = 0; offset < parent.content.length; ) {
    const item = readTlv(parent.content, offset);
    items.push(item);
    offset += item.raw.length;
  }
  return items;
}

export function readOid(value: Tlv): string {
  if (value.tag !== TAG.oid || value.content.length === 0) throw new PkiError('ERR_DER_SYNTAX', 'expected an OID');
  const arcs: number[] = [];
  let arc = 0;
  let isBegun = false;
  for (const byte of value.content) {
    if (!isBegun && byte === 0x80) throw new PkiError('ERR_DER_SYNTAX', 'an OID has more bytes than needed');
    arc = arc * 128 + (byte & 0x7f);
    isBegun = byte >= 0x80;
    if (!isBegun) {
      arcs.push(arc);
      arc = 0;
    }
  }
  if (isBegun) throw new PkiError('ERR_DER_SYNTAX', 'an OID ends within an arc');
  const [head = 0, ...rest] = arcs;
  const first = Math.min(2, Math.floor(head / 40));
  return [first, head - first * 40, ...rest].join('.');
}

/** UTCTime or GeneralizedTime in Zulu form, as epoch milliseconds. */
export function readTime(value: Tlv): number {
  const text = value.content.toString('latin1');
  const match = /^(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(text);
  const [, yy = '', month, day, hour, minute, second] = match ?? [];
  if (!match || value.tag !== (yy.length === 2 ? TAG.utcTime : TAG.generalizedTime)) {
    throw new PkiError('ERR_DER_SYNTAX', 'a time is not in the form that RFC 5280 requires');
  }
  const year = yy.length === 4 ? yy : `${Number(yy) < 50 ? '20' : '19'}${yy}`;
  const iso = `${year}-${month}-${day}T${hour}:${minute}:${second}`;
  const ms = Date.parse(`${iso}Z`);
  // 30 February is read as 2 March, 24:00 as the next day.
  if (Number.isNaN(ms) || !new Date(ms).toISOString().startsWith(iso)) {
    throw new PkiError('ERR_DER_SYNTAX', 'a time does not exist in the calendar');
  }
  return ms;
}

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

/** 1 to 3 in the usual numbering; any other number is not a version of X.509. */
export function versionOf({ signed: [first] }: DerFields): number {
  if (first?.tag !== 0xa0) return 1;
  const [version] = children(first);
  return version?.content.length === 1 ? (version.content[0] ?? 0) + 1 : 0;
}

/** Why Envoy does not load a certificate of its version; undefined when it does. */
export function versionDefect(fields: DerFields): string | undefined {
  const version = versionOf(fields);
  if (version === 1 && fields.signed[0]?.tag === 0xa0) return 'it has an explicit version 1, which DER forbids';
  // Anything after the public key: unique identifiers came with version 2.
  if (version === 1 && fields.signed.at(-1) !== fields.publicKey) {
    return 'it is of version 1 and has extensions or unique identifiers, which need version 3';
  }
  if (version === 1) return undefined;
  return version === 3 ? undefined : `it is of version ${version}, which is not in use; certificates have version 3`;
}

/** Why Envoy does not load a certificate, whether or not it is used for a path; undefined when it does. */
export function loadDefect({ issuer, subject, publicKey, parts }: DerFields): string | undefined {
  for (const name of [issuer, subject]) {
    if (children(name).some((set) => set.tag !== TAG.set || set.content.length === 0)) {
      return 'a part of its subject or issuer is empty';
    }
  }
  const [, key] = children(publicKey);
  if (key?.content[0] !== 0) return 'its public key ends within a byte';
  return parts[2]?.content[0] === 0 ? undefined : 'its signature ends within a byte';
}

/** Why some implementation cannot read the fields other than the extensions; undefined when all can. */
export function fieldDefect({ signed, serial, issuer, subject, parts }: DerFields): string | undefined {
  const algorithm = signed[signed.indexOf(serial) + 1];
  if ((serial.content[0] ?? 0x80) >= 0x80) return 'its serial number is negative';
  if (!algorithm || !parts[1]?.raw.equals(algorithm.raw)) return 'it names two different signature algorithms';
  const odd = [issuer, subject].flatMap(textsIn).find((text) => !isReadable(text));
  return odd && 'a text in its subject or issuer does not match its declared type';
}

/** Whether OpenSSL, BoringSSL and Go all verify signatures of the algorithm that the certificate names. */
export const hasCommonSignature = ({ parts }: DerFields): boolean =>
  SIGNATURE_ALGORITHMS.some(({ der }) => parts[1]?.raw.equals(der) === true);

const textsIn = (name: Tlv): (Tlv | undefined)[] =>
  children(name).flatMap((set) => children(set).map((attribute) => children(attribute)[1]));

const UTF8 = new TextDecoder('utf-8', { fatal: true });
const PRINTABLE = /^[A-Za-z0-9 '()+,./:=?*&-]*$/;

function isReadable(text: Tlv | undefined): boolean {
  if (!text) return false;
  const { tag, content } = text;
  switch (tag) {
    case TAG.utf8:
      try {
        UTF8.decode(content);
        return true;
      } catch {
        return false;
      }
    case TAG.printable:
      return PRINTABLE.test(content.toString('latin1'));
    case TAG.numeric:
      return /^[0-9 ]*$/.test(content.toString('latin1'));
    case TAG.ia5:
      return content.every((byte) => byte < 0x80);
    case TAG.t61:
      return true;
    case TAG.bmp:
      return content.length % 2 === 0;
    default:
      return false;
  }
}

/** An error with a stable code. The base of each kind of error that docs/errors.md explains. */
export class CodedError<Code extends string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, { cause }: { readonly cause?: unknown } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** Stable codes of everything that src/pki refuses. */
export const PKI_ERROR_CODES = [
  'ERR_PEM_TOO_LARGE',
  'ERR_PEM_TOO_MANY',
  'ERR_PEM_SYNTAX',
  'ERR_PEM_EMPTY',
  'ERR_DER_SYNTAX',
  'ERR_CERT_SYNTAX',
  'ERR_KEY_SYNTAX',
  'ERR_KEY_TYPE',
  'ERR_KEY_COUNT',
  'ERR_CSR_NAME',
] as const;

export type PkiErrorCode = (typeof PKI_ERROR_CODES)[number];

/** Invalid input. The message never quotes the input: it may hold a key. */
export class PkiError extends CodedError<PkiErrorCode> {
  override readonly name = 'PkiError';
}

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

export interface PemBlock {
  readonly label: string;
  readonly der: Buffer;
}

export interface PemLimits {
  /** Whole input, bytes. */
  readonly bytes: number;
  readonly blocks: number;
}

/**
 * 1 MiB is the size limit of a Kubernetes Secret; a public root store of 150 certificates is a quarter of that. Without
 * caps a hostile issuer can make the reader work for minutes (GHSA-r4pg-vg54-wxx4).
 */
export const PEM_LIMITS: PemLimits = { bytes: 1024 * 1024, blocks: 256 };

const BEGIN = '-----BEGIN ';
const END = '-----END ';
const DASHES = '-----';
/** Longest label in use is `ENCRYPTED PRIVATE KEY`. */
const LONGEST_LABEL = 40;

/**
 * All PEM blocks, in order, in linear time. Text between blocks, CRLF, indentation and a missing newline between two
 * blocks are tolerated; a block that is truncated, mislabelled, nested, encrypted by headers or not base64 is an error,
 * as is an input without any block.
 */
export function parsePem(input: string | Uint8Array, limits: PemLimits = PEM_LIMITS): PemBlock[] {
  if (input.length > limits.bytes) {
    throw new PkiError('ERR_PEM_TOO_LARGE', `PEM input of ${input.length} bytes is over the limit of ${limits.bytes}`);
  }
  const text = typeof input === 'string' ? input : Buffer.from(input).toString('latin1');
  const blocks: PemBlock[] = [];
  let at = 0;
  for (;;) {
    const begin = text.indexOf(BEGIN, at);
    const stray = text.slice(at, begin < 0 ? undefined : begin).indexOf(END);
    if (stray >= 0) throw new PkiError('ERR_PEM_SYNTAX', `PEM block ${blocks.length + 1} has an end but no beginning`);
    if (begin < 0) break;
    if (blocks.length >= limits.blocks) {
      throw new PkiError('ERR_PEM_TOO_MANY', `PEM input has more than ${limits.blocks} blocks`);
    }
    const { block, next } = readBlock(text, begin, blocks.length + 1);
    blocks.push(block);
    at = next;
  }
  if (blocks.length === 0) throw new PkiError('ERR_PEM_EMPTY', 'input has no PEM block');
  return blocks;
}

function readBlock(text: string, begin: number, ordinal: number): { block: PemBlock; next: number } {
  const wrong = (what: string) => new PkiError('ERR_PEM_SYNTAX', `PEM block ${ordinal} ${what}`);
  const labelStart = begin + BEGIN.length;
  const labelEnd = text.slice(labelStart, labelStart + LONGEST_LABEL + DASHES.length).indexOf(DASHES);
  if (labelEnd < 0) throw wrong('has no readable label');
  const label = text.slice(labelStart, labelStart + labelEnd);
  if (!/^[A-Z0-9][A-Z0-9 .]*$/.test(label)) throw wrong('has no readable label');
  const bodyStart = labelStart + labelEnd + DASHES.length;
  const bodyEnd = text.indexOf(DASHES, bodyStart);
  const end = `${END}${label}${DASHES}`;
  if (bodyEnd < 0) throw wrong(`(${label}) is cut short: it has no end`);
  if (!text.startsWith(end, bodyEnd)) throw wrong(`(${label}) does not end with its own label`);
  const body = text.slice(bodyStart, bodyEnd);
  if (body.includes(':')) throw wrong(`(${label}) has headers, as encrypted keys have; decrypt it first`);
  const base64 = body.replace(/[\s\0]+/g, '');
  if (base64.length === 0 || base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) {
    throw wrong(`(${label}) is not complete base64`);
  }
  return { block: { label, der: Buffer.from(base64, 'base64') }, next: bodyEnd + end.length };
}

/** Decodes one block as `formatPem` writes it, which needs none of the checks of `parsePem`. */
export const derIn = (pem: string): Buffer => Buffer.from(pem.split('\n').slice(1, -2).join(''), 'base64');

/** One block with lines of 64 columns and a final newline. */
export function formatPem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64');
  return `${BEGIN}${label}${DASHES}\n${base64.replace(/(.{1,64})/g, '$1\n')}${END}${label}${DASHES}\n`;
}
