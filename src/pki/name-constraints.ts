import { children, readOid, TAG, type Tlv } from './der/der.ts';
import { PkiError } from './der/error.ts';
import type { Names } from './names.ts';

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
