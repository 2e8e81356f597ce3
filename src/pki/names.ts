import { isIP } from 'node:net';
import { children, context, PkiError, readOid, seq, TAG, type Tlv } from './der.ts';

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

/** The bases of the subtrees, by the form of the name. */
interface Subtrees {
  readonly uris: readonly string[];
  readonly dns: readonly string[];
  readonly emails: readonly string[];
  /** Address and mask, 8 or 32 bytes. */
  readonly ips: readonly Buffer[];
}

/** The name constraints of one CA (RFC 5280 §4.2.1.10). */
export interface NameConstraints {
  readonly permitted: Subtrees;
  readonly excluded: Subtrees;
  /** A kind of constraint that is not processed here, such as one on directory names. */
  readonly unsupported: string | undefined;
}

/** The names of one certificate that are compared with constraints. */
export interface Constrained extends Names {
  /** Common names of a leaf without DNS names: OpenSSL and BoringSSL treat them as DNS names. */
  readonly commonNames: readonly string[];
}

const KINDS: Readonly<Record<number, string>> = {
  160: 'other names',
  163: 'X.400 addresses',
  164: 'directory names',
  165: 'EDI party names',
  136: 'registered IDs',
};
/** Go stops at this many comparisons; a chain of usual size needs a few. */
const MOST_COMPARISONS = 250_000;
const HOST = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/;
const DOTTED_NUMBERS = /^[0-9.]+$/;

/** Throws ERR_DER_SYNTAX for invalid input. */
export function readNameConstraints(value: Tlv): NameConstraints {
  const lists = value.tag === TAG.sequence ? children(value) : [];
  const [permitted, excluded] = [0xa0, 0xa1].map((tag) => lists.filter((list) => list.tag === tag));
  if (lists.length === 0 || !permitted || !excluded || lists.length !== permitted.length + excluded.length) {
    throw new PkiError('ERR_DER_SYNTAX', 'it holds no constraints');
  }
  const bases = (of: readonly Tlv[]) => of.flatMap(children).map(baseOf);
  const [inside, outside] = [bases(permitted), bases(excluded)];
  if (inside.length + outside.length === 0) throw new PkiError('ERR_DER_SYNTAX', 'it holds no constraints');
  const other = [...inside, ...outside].find(({ tag }) => tag in KINDS);
  return { permitted: sorted(inside), excluded: sorted(outside), unsupported: other && KINDS[other.tag] };
}

function baseOf(subtree: Tlv): Tlv {
  const [base, ...more] = subtree.tag === TAG.sequence ? children(subtree) : [];
  if (!base || more.length > 0) throw new PkiError('ERR_DER_SYNTAX', 'a constraint has more fields than its base');
  return base;
}

function sorted(bases: readonly Tlv[]): Subtrees {
  const texts = (tag: number, isValid: (text: string) => boolean): string[] =>
    bases
      .filter((base) => base.tag === tag)
      .map(({ content }) => {
        const text = content.toString('latin1');
        if (!isValid(text))
          throw new PkiError('ERR_DER_SYNTAX', `the constraint ${JSON.stringify(text)} is not a name`);
        return text;
      });
  const isDomain = (text: string): boolean => text === '' || HOST.test(text.replace(/^\./, ''));
  const ips = bases.filter(({ tag }) => tag === 0x87).map(({ content }) => content);
  if (!ips.every(isNetwork)) throw new PkiError('ERR_DER_SYNTAX', 'a constraint on addresses is not a network');
  const known = [0x81, 0x82, 0x86, 0x87];
  if (!bases.every(({ tag }) => known.includes(tag) || tag in KINDS)) {
    throw new PkiError('ERR_DER_SYNTAX', 'a constraint is of no known kind');
  }
  return {
    emails: texts(0x81, (text) => isDomain(text.slice(text.lastIndexOf('@') + 1)) && !text.endsWith('@')),
    dns: texts(0x82, isDomain),
    uris: texts(0x86, (text) => isDomain(text) && !(text !== '' && DOTTED_NUMBERS.test(text))),
    ips,
  };
}

function isNetwork(bytes: Buffer): boolean {
  if (bytes.length !== 8 && bytes.length !== 32) return false;
  const mask = BigInt(`0x${bytes.subarray(bytes.length / 2).toString('hex')}`);
  const zeros = (1n << BigInt(bytes.length * 4)) - 1n - mask;
  return (zeros & (zeros + 1n)) === 0n;
}

/**
 * The name that the constraints forbid, as a part of a sentence; undefined when all are allowed. If OpenSSL and Go
 * interpret a constraint in different ways, a name must satisfy both.
 */
export function violationOf({ permitted, excluded }: NameConstraints, names: Constrained): string | undefined {
  const dns = names.dns.length > 0 ? names.dns : names.commonNames;
  return (
    incomparable('URI', names.uris, uriMatches) ??
    incomparable('DNS name', dns, dnsMatches) ??
    incomparable('email address', names.emails, emailMatches) ??
    violated('URI', names.uris, permitted.uris, excluded.uris, uriMatches) ??
    violated('DNS name', dns, permitted.dns, excluded.dns, dnsMatches) ??
    violated('email address', names.emails, permitted.emails, excluded.emails, emailMatches) ??
    addressed(names.ips, permitted.ips.length + excluded.ips.length)
  );
}

/** Envoy compares no addresses: it refuses an address under any address constraint. */
function addressed([address]: readonly string[], constraints: number): string | undefined {
  return address === undefined || constraints === 0 ? undefined : `Envoy cannot compare the IP address ${address}`;
}

/** Under any constraint Go refuses a name that it could not compare with one of its form. */
function incomparable(
  form: string,
  names: readonly string[],
  matches: (name: string, base: string) => Match,
): string | undefined {
  const odd = names.find((name) => matches(name, '') === undefined);
  return odd === undefined ? undefined : `the ${form} ${JSON.stringify(odd)} cannot be compared with them`;
}

function violated(
  form: string,
  names: readonly string[],
  permitted: readonly string[],
  excluded: readonly string[],
  matches: (name: string, base: string) => Match,
): string | undefined {
  const count = permitted.length + excluded.length;
  if (count === 0) return undefined;
  if (names.length * count > MOST_COMPARISONS) return `there are too many names (${names.length}) to compare with them`;
  for (const name of names) {
    const [allowing, forbidding] = [permitted, excluded].map((bases) => bases.map((base) => matches(name, base)));
    if (forbidding?.some((match) => match !== 'no')) return `the ${form} ${name} is excluded`;
    if (permitted.length > 0 && !allowing?.includes('yes')) return `the ${form} ${name} is not permitted`;
  }
  return undefined;
}

/** `maybe`: implementations differ. Undefined: the name cannot be compared. */
type Match = 'yes' | 'no' | 'maybe' | undefined;

function dnsMatches(name: string, base: string): Match {
  const plain = name.startsWith('*.') ? name.slice(2) : name;
  if (!HOST.test(plain)) return undefined;
  if (base === '') return 'yes';
  if (isBelow(name, base) || (!base.startsWith('.') && sameHost(name, base))) return 'yes';
  // Newer implementations let a wildcard match each name that it covers.
  return plain !== name && isBelow(base, plain) ? 'maybe' : 'no';
}

function uriMatches(uri: string, base: string): Match {
  const host = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#:@]+)(:\d*)?([/?#]|$)/.exec(uri)?.[1];
  if (host === undefined || !HOST.test(host) || DOTTED_NUMBERS.test(host)) return undefined;
  return hostMatches(host, base);
}

function emailMatches(email: string, base: string): Match {
  const [local, host, ...more] = email.split('@');
  if (!local || !host || more.length > 0 || !HOST.test(host)) return undefined;
  const at = base.lastIndexOf('@');
  if (at < 0) return hostMatches(host, base);
  const sameLocal = local === base.slice(0, at);
  return sameLocal && sameHost(host, base.slice(at + 1)) ? 'yes' : 'no';
}

/**
 * According to the RFC a base without a leading dot is one host; Go also matches all names below it, and all names for
 * an empty one.
 */
function hostMatches(host: string, base: string): Match {
  if (base === '') return 'maybe';
  if (base.startsWith('.')) return isBelow(host, base) ? 'yes' : 'no';
  if (sameHost(host, base)) return 'yes';
  return isBelow(host, base) ? 'maybe' : 'no';
}

const sameHost = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase();
const isBelow = (host: string, base: string): boolean =>
  host.toLowerCase().endsWith(`.${base.replace(/^\./, '').toLowerCase()}`);

/** The values of one attribute in a Name, DER. */
export function attributesIn(name: Tlv, id: string): string[] {
  return children(name).flatMap((set) =>
    children(set).flatMap((attribute) => {
      const [type, value] = children(attribute);
      return type?.tag === TAG.oid && value && readOid(type) === id ? [value.content.toString('latin1')] : [];
    }),
  );
}

export interface SpiffeId {
  readonly trustDomain: string;
  /** Empty, or starting with a slash. */
  readonly path: string;
}

/** Longest URI that SPIFFE implementations must support. */
const LONGEST_ID = 2048;
const LONGEST_TRUST_DOMAIN = 255;

/** Undefined unless `text` is exactly a SPIFFE ID: lower-case trust domain, no empty, `.` or `..` segment. */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  const match = /^spiffe:\/\/([a-z0-9._-]+)((?:\/[A-Za-z0-9._-]+)*)$/.exec(text);
  const [, trustDomain = '', path = ''] = match ?? [];
  if (!match || text.length > LONGEST_ID || trustDomain.length > LONGEST_TRUST_DOMAIN) return undefined;
  if (path.split('/').some((segment) => segment === '.' || segment === '..')) return undefined;
  return { trustDomain, path };
}

export const formatSpiffeId = ({ trustDomain, path }: SpiffeId): string => `spiffe://${trustDomain}${path}`;
