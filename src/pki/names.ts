import { isIP } from 'node:net';
import { children, context, seq, TAG, type Tlv } from './der/der.ts';
import { PkiError } from './der/error.ts';

/** The subject alternative names that meshes use; other forms are omitted. */
export interface Names {
  readonly uris: readonly string[];
  readonly dns: readonly string[];
  /** As text: `10.0.0.1`, `2001:db8::1`. */
  readonly ips: readonly string[];
  readonly emails: readonly string[];
}

/** Shared, since certificates are held by the thousand and most have names of one form. */
const NONE: readonly string[] = Object.freeze([]);
export const NO_NAMES: Names = { uris: NONE, dns: NONE, ips: NONE, emails: NONE };

// biome-ignore lint/suspicious/noControlCharactersInRegex: IA5String is exactly this range
const ASCII = /^[\x00-\x7f]*$/;
/**
 * With a host of letters, digits, dots, dashes and underscores, or an opaque part; no escapes, which implementations
 * interpret differently.
 */
const PLAIN_URI =
  /^[A-Za-z][A-Za-z0-9+.-]*:(\/\/([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)?(:\d{1,5})?(\/[A-Za-z0-9._~!$&'()*+,;=:@/-]*)?|[A-Za-z0-9._~-][A-Za-z0-9._~:/-]*)(\?[A-Za-z0-9._~!$&'()*+,;=:@/?-]*)?$/;

const OTHER_NAME = 0xa0;
const DIRECTORY_NAME = 0xa4;
/** Email, DNS, URI, IP and registered ID. */
const PLAIN_NAMES: readonly number[] = [0x81, 0x82, 0x86, 0x87, 0x88];
const EMAIL = 1;
const DNS = 2;
const URI = 6;
const IP = 7;

/** GeneralNames in the order URI, DNS, IP, email. */
export function encodeNames(names: Partial<Names>): Buffer {
  return seq(
    ...(names.uris ?? []).map((name) => context(URI, ascii(name))),
    ...(names.dns ?? []).map((name) => context(DNS, ascii(name))),
    ...(names.ips ?? []).map((name) => context(IP, ipBytes(name))),
    ...(names.emails ?? []).map((name) => context(EMAIL, ascii(name))),
  );
}

/** Throws ERR_DER_SYNTAX unless each is a GeneralName (RFC 5280 §4.2.1.6) of a known form. */
export function requireGeneralNames(items: readonly Tlv[]): void {
  for (const item of items) {
    const { tag } = item;
    if (PLAIN_NAMES.includes(tag)) continue;
    const [first, second, ...more] = tag === OTHER_NAME || tag === DIRECTORY_NAME ? children(item) : [];
    const isOther = tag === OTHER_NAME && first?.tag === TAG.oid && second?.tag === 0xa0 && more.length === 0;
    const isDirectory = tag === DIRECTORY_NAME && first && !second && isName(first);
    if (!isOther && !isDirectory) throw new PkiError('ERR_DER_SYNTAX', 'a name in it is of no known form');
  }
}

const isName = (name: Tlv): boolean =>
  name.tag === TAG.sequence &&
  children(name).every((set) => {
    const attributes = set.tag === TAG.set ? children(set) : [];
    return attributes.length > 0 && attributes.every((one) => one.tag === TAG.sequence && children(one).length === 2);
  });

/** Reads GeneralNames from their bytes: the text form that OpenSSL prints is ambiguous for commas and quotes. */
export function decodeNames(value: Tlv): Names {
  const all = children(value);
  const of = (type: number, read: (content: Buffer) => string): readonly string[] => {
    const found = all.filter(({ tag }) => tag === (0x80 | type));
    return found.length === 0 ? NONE : found.map(({ content }) => read(content));
  };
  return { uris: of(URI, latin1), dns: of(DNS, latin1), ips: of(IP, ipText), emails: of(EMAIL, latin1) };
}

/** Why Go refuses to read a certificate with these names; undefined when it does not. */
export function nameDefect({ uris, dns, ips, emails }: Names): string | undefined {
  const odd =
    [...uris, ...dns, ...emails].find((name) => !ASCII.test(name)) ?? uris.find((uri) => !PLAIN_URI.test(uri));
  if (odd !== undefined) return `some readers refuse the name ${JSON.stringify(odd)}`;
  return ips.every((text) => isIP(text) !== 0) ? undefined : 'an IP address has neither 4 nor 16 bytes';
}

const latin1 = (content: Buffer): string => content.toString('latin1');

function ascii(name: string): Buffer {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: IA5String is exactly this range
  if (name.length === 0 || !/^[\x01-\x7f]+$/.test(name)) {
    throw new PkiError('ERR_CSR_NAME', `the name ${JSON.stringify(name)} is empty or not plain ASCII`);
  }
  return Buffer.from(name, 'latin1');
}

/** 4 or 16 bytes; throws ERR_CSR_NAME for other texts. */
export function ipBytes(text: string): Buffer {
  if (isIP(text) === 4) return Buffer.from(text.split('.').map(Number));
  if (isIP(text) !== 6) throw new PkiError('ERR_CSR_NAME', `${JSON.stringify(text)} is not an IP address`);
  const [head = '', tail] = text.split('::');
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => 0);
  return Buffer.from([...left, ...zeros, ...right].flatMap((group) => [group >> 8, group & 0xff]));
}

/** Hexadecimal groups, the last of which may be a dotted IPv4 address. */
function groups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((part) => {
    if (!part.includes('.')) return [Number.parseInt(part, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}

function ipText(bytes: Buffer): string {
  if (bytes.length === 4) return [...bytes].join('.');
  if (bytes.length !== 16) return bytes.toString('hex');
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16));
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
