import type { Certificate } from '../pki/certificate.ts';
import {
  authorityOf,
  type FailedPath,
  findPath,
  MOST_IN_ORDER,
  mayServeClients,
  type PathResult,
} from '../pki/chain.ts';
import { DIGITAL_SIGNATURE } from '../pki/extensions.ts';
import type { PrivateKey } from '../pki/key.ts';
import { describeKeyType } from '../pki/key-type.ts';
import { parseSpiffeId } from '../pki/names.ts';

/** What a leaf must be. `id` is compared literally; absent parts are not checked. */
export interface ExpectedIdentity {
  readonly id?: string | undefined;
  readonly trustDomain?: string | undefined;
  readonly form: 'spiffe' | 'dns';
  /** How far ahead of ours the issuer's clock may be; default SKEW_MS. */
  readonly skewMs?: number | undefined;
  /** Only the certificates are checked, as `inspect` does for a file without a key. */
  readonly keyless?: boolean | undefined;
}

export interface PresentedPair {
  readonly key: PrivateKey | undefined;
  /** Leaf first. */
  readonly chain: readonly Certificate[];
}

export interface CheckSubject {
  readonly pair: PresentedPair;
  readonly leaf: Certificate;
  readonly bundle: readonly Certificate[];
  readonly expected: ExpectedIdentity;
  readonly now: number;
  readonly path: PathResult;
}

/** Meshes backdate their leaves by ten seconds to two minutes; half a minute covers clocks that NTP adjusts. */
export const SKEW_MS = 30_000;

/**
 * Envoy's default of 100 for `max_verify_depth` is far higher; a handshake with more than 16 KiB of certificates needs
 * more round trips, and a Secret holds 1 MiB, which contains the bundle twice.
 */
export const LIMITS = { chain: 10, bundle: 64, chainBytes: 64 * 1024, bundleBytes: 256 * 1024 } as const;

/**
 * Curves that Envoy's BoringSSL loads, and verifies as an upstream: it loads a leaf on P-521 and does not verify it.
 */
const CURVES: readonly string[] = ['P-256', 'P-384'];
const SMALLEST_RSA = 2048;

const day = (ms: number): string => new Date(ms).toISOString();
const size = (certificates: readonly Certificate[]): number =>
  certificates.reduce((sum, { pem }) => sum + pem.length, 0);
const named = (certificate: Certificate): string =>
  certificate.subject || certificate.names.uris[0] || certificate.names.dns[0] || certificate.fingerprint.slice(0, 16);

/** The names of a leaf in the expected form. */
export const idsOf = (leaf: Certificate, form: ExpectedIdentity['form']): readonly string[] =>
  form === 'spiffe' ? leaf.names.uris : leaf.names.dns;

/** A check of a chain and a bundle before a leaf is known to exist. Each returns the problem, or undefined. */
export function emptyChain(pair: PresentedPair): string | undefined {
  return pair.chain.length === 0 ? 'the chain holds no certificate' : undefined;
}

export function emptyBundle(_pair: PresentedPair, bundle: readonly Certificate[]): string | undefined {
  return bundle.length === 0 ? 'the trust bundle is empty: nothing could be verified against it' : undefined;
}

export function tooMany(pair: PresentedPair, bundle: readonly Certificate[]): string | undefined {
  if (pair.chain.length > LIMITS.chain) {
    return `the chain has ${pair.chain.length} certificates, more than ${LIMITS.chain}`;
  }
  if (bundle.length > LIMITS.bundle) return `the bundle has ${bundle.length} roots, more than ${LIMITS.bundle}`;
  return undefined;
}

export function tooLarge(pair: PresentedPair, bundle: readonly Certificate[]): string | undefined {
  const [chainBytes, bundleBytes] = [size(pair.chain), size(bundle)];
  if (chainBytes > LIMITS.chainBytes) return `the chain is ${chainBytes} bytes of PEM, more than ${LIMITS.chainBytes}`;
  if (bundleBytes > LIMITS.bundleBytes) {
    return `the bundle is ${bundleBytes} bytes of PEM, more than ${LIMITS.bundleBytes}`;
  }
  return undefined;
}

/** A check of each certificate that is about to be written. */
export function version(pair: PresentedPair, bundle: readonly Certificate[]): string | undefined {
  const odd = [...pair.chain, ...bundle].find(({ versionDefect }) => versionDefect);
  return odd && `Envoy does not load ${named(odd)}: ${odd.versionDefect}`;
}

export function loading(pair: PresentedPair, bundle: readonly Certificate[]): string | undefined {
  const odd = [...pair.chain, ...bundle].find(({ loadDefect }) => loadDefect);
  return odd && `Envoy does not load ${named(odd)}: ${odd.loadDefect}`;
}

export function keyType({ leaf }: CheckSubject): string | undefined {
  const type = leaf.keyType;
  if (type.type === 'ec' && CURVES.includes(type.curve)) return undefined;
  if (type.type === 'rsa' && type.bits >= SMALLEST_RSA) return undefined;
  return `the leaf's key is ${describeKeyType(type)}; Envoy accepts EC P-256, P-384, and RSA of ${SMALLEST_RSA} bits or more`;
}

export function keyMismatch({ pair, leaf, expected }: CheckSubject): string | undefined {
  if (expected.keyless) return undefined;
  if (!pair.key) return 'there is no private key for the certificate';
  return pair.key.publicKeyFingerprint === leaf.publicKeyFingerprint
    ? undefined
    : 'the private key does not belong to the leaf certificate';
}

export function expired({ leaf, now }: CheckSubject): string | undefined {
  return now >= leaf.notAfter ? `the leaf expired at ${day(leaf.notAfter)}, and it is ${day(now)}` : undefined;
}

export function notYetValid({ leaf, now, expected }: CheckSubject): string | undefined {
  if (now + (expected.skewMs ?? SKEW_MS) >= leaf.notBefore) return undefined;
  return `the leaf is valid from ${day(leaf.notBefore)}, and it is ${day(now)}; compare this clock with the issuer's`;
}

export function sanForm({ leaf, expected: { form } }: CheckSubject): string | undefined {
  const ids = idsOf(leaf, form);
  if (form === 'dns')
    return ids.length > 0 ? undefined : 'the leaf has no DNS name, by which this mesh identifies workloads';
  if (ids.length !== 1) return `the leaf has ${ids.length} URI names; an X.509 SVID has exactly one`;
  const [id = ''] = ids;
  return parseSpiffeId(id) ? undefined : `the leaf's URI name ${JSON.stringify(id)} is not a SPIFFE ID`;
}

export function id({ leaf, expected }: CheckSubject): string | undefined {
  const ids = idsOf(leaf, expected.form);
  if (expected.id === undefined || ids.includes(expected.id)) return undefined;
  return `the leaf is for ${ids.join(' and ') || 'no identity'}; expected ${expected.id}`;
}

export function trustDomain({ leaf, expected }: CheckSubject): string | undefined {
  if (expected.trustDomain === undefined) return undefined;
  const ids = idsOf(leaf, expected.form);
  const fits = (name: string) =>
    expected.form === 'spiffe'
      ? parseSpiffeId(name)?.trustDomain === expected.trustDomain
      : name === expected.trustDomain || name.endsWith(`.${expected.trustDomain}`);
  return ids.some(fits) ? undefined : `${ids.join(', ')} is not in the trust domain ${expected.trustDomain}`;
}

export function clientAuth({ leaf: { extendedKeyUsage: usages } }: CheckSubject): string | undefined {
  if (mayServeClients(usages)) return undefined;
  return `the leaf may not authenticate a client: its extended key usage is ${usages.join(', ')}, without clientAuth`;
}

export function keyUsage({ leaf }: CheckSubject): string | undefined {
  return leaf.allows(DIGITAL_SIGNATURE)
    ? undefined
    : 'the leaf may not sign a TLS handshake: its key usage lacks digitalSignature';
}

/** Only a CA is its own issuer, and who has the key of a CA can issue any leaf. */
export function leafKey({ pair: { chain }, leaf, bundle }: CheckSubject): string | undefined {
  if (leaf.selfSigned || (leaf.subject !== '' && leaf.isSelfIssued)) return 'the leaf is its own issuer';
  const ca = [...chain, ...bundle].find((one) => one.isCa && one.publicKeyFingerprint === leaf.publicKeyFingerprint);
  return ca && ca !== leaf ? `the leaf has the key of the CA ${named(ca)}` : undefined;
}

export function chainOrder({ pair: { chain }, leaf }: CheckSubject): string | undefined {
  if (leaf.isCa) return `the chain begins with the CA certificate ${named(leaf)}; the leaf must be first`;
  const stray = chain.find((one, at) => at > 0 && !chain.slice(0, at).some((earlier) => earlier.isIssuedBy(one)));
  return stray && `${named(stray)} in the chain did not issue the certificate before it`;
}

export function chainIncomplete({ at }: FailedPath): string {
  return `no root in the bundle issued ${named(at)} (its issuer is ${at.issuer || 'unnamed'})`;
}

export function linkExpired({ at, how }: FailedPath, now: number): string {
  return `${named(at)} above the leaf is valid from ${day(at.notBefore)} to ${day(at.notAfter)}, and it is ${day(now)}: ${how}`;
}

export function malformed({ at, how }: FailedPath): string {
  return `some upstreams cannot read ${named(at)}: ${how}`;
}

export function brokenPath({ at, how }: FailedPath): string {
  return `${named(at)} cannot be part of the path from the leaf to a root: ${how}`;
}

export function subjectOf(
  pair: PresentedPair,
  leaf: Certificate,
  bundle: readonly Certificate[],
  expected: ExpectedIdentity,
  now: number,
): CheckSubject {
  const path = findPath(leaf, pair.chain.slice(1), bundle, now, expected.skewMs ?? SKEW_MS);
  const failed = path.ok ? (unreadable(pair, path.path) ?? preceded(pair, bundle, path.path, now)) : undefined;
  return { pair, leaf, bundle, expected, now, path: failed ?? path };
}

/** The issuers of an anchor that are in the bundle. */
function above(anchor: Certificate | undefined, bundle: readonly Certificate[]): readonly Certificate[] {
  const found: Certificate[] = [];
  for (let top = anchor; top && !top.selfSigned && found.length < bundle.length; top = found.at(-1)) {
    const issuer = bundle.find((one) => top?.isIssuedBy(one));
    if (!issuer) break;
    found.push(issuer);
  }
  return found;
}

/**
 * Envoy takes the first certificate that matches by subject and key, from the bundle before the chain, and gives up if
 * that one has expired or is not valid yet. It follows a path beyond a certificate of the bundle whose issuer is there
 * too.
 */
function preceded(
  { chain }: PresentedPair,
  bundle: readonly Certificate[],
  path: readonly Certificate[],
  now: number,
): FailedPath | undefined {
  const issuers = path.slice(1);
  for (const issuer of [...issuers, ...above(path.at(-1), bundle)]) {
    const [trusted, sent] = [bundle, chain].map((all) => all.filter((one) => authorityOf(one) === authorityOf(issuer)));
    const fitting = (trusted?.length ? trusted : sent) ?? [];
    const taken = bundle.length > MOST_IN_ORDER ? fitting : fitting.slice(0, 1);
    const at = taken.find((one) => !issuers.includes(one) && !(one.notBefore <= now && now < one.notAfter));
    if (!at) continue;
    const reason = now >= at.notAfter ? 'expired_link' : 'not_yet_valid_link';
    return { ok: false, reason, at, how: 'Envoy takes it, and no other path' };
  }
  return undefined;
}

/** Go parses each certificate that it receives, and OpenSSL loads each that it sends, even one that no path needs. */
function unreadable({ chain }: PresentedPair, path: readonly Certificate[]): FailedPath | undefined {
  for (const at of chain) {
    const how = at.defect ?? (path.includes(at) ? undefined : unusableKey(at));
    if (how !== undefined) return { ok: false, reason: 'malformed', at, how };
  }
  return undefined;
}

function unusableKey({ hasUsableKey, keyType: type }: Certificate): string | undefined {
  if (!hasUsableKey) return 'its public key cannot be used';
  return type.type === 'rsa' && type.bits < SMALLEST_RSA ? `its key is ${describeKeyType(type)}` : undefined;
}
