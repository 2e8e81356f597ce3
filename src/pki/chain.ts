import { hash } from 'node:crypto';
import type { Certificate } from './certificate.ts';
import { readFields } from './der.ts';
import { extensionsIn, KEY_CERT_SIGN, OID } from './extensions.ts';
import { describeKeyType } from './key-type.ts';
import { violationOf } from './names.ts';

export type PathFailure = 'no_issuer' | 'no_root' | PathRule;

export interface FailedPath {
  readonly ok: false;
  readonly reason: PathFailure;
  readonly at: Certificate;
  /** How `at` breaks the rule, as a part of a sentence about it; empty if no path leads to a root. */
  readonly how: string;
}

export type PathResult = { readonly ok: true; readonly path: readonly Certificate[] } | FailedPath;

/** Deepest path that is followed; meshes have two to four links. */
const DEEPEST = 10;
/** Comparisons that a search may cost: many roots of the same name must not stall it. */
const MOST_CHECKS = 1000;

/**
 * A path leaf..root that keeps all of `PATH_RULES` at `now`, the shortest of several. Every member of `roots` ends a
 * path, self-signed or not, as in Envoy.
 *
 * When there is none, the failure is that of the path that keeps the most rules: `expired_link` and
 * `not_yet_valid_link` mean that only time is wrong. `no_issuer` means that none of the given certificates issued the
 * leaf; `no_root` names the highest certificate that was reached. `skewMs` lets links begin that much after `now`.
 */
export function findPath(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
  skewMs = 0,
): PathResult {
  let checks = 0;
  let nearest: FailedPath | undefined;
  let highest = [leaf];
  const issuersOf = (certificate: Certificate, among: readonly Certificate[]) =>
    among.filter((candidate) => checks++ < MOST_CHECKS && certificate.isIssuedBy(candidate));

  let paths: Certificate[][] = [[leaf]];
  for (let depth = 0; depth < DEEPEST && paths.length > 0; depth++) {
    const longer: Certificate[][] = [];
    for (const path of paths) {
      const top = path.at(-1);
      if (!top) continue;
      if (path.length > highest.length) highest = path;
      const anchors = roots.some((root) => root.fingerprint === top.fingerprint) ? [[]] : [];
      for (const end of [...anchors, ...issuersOf(top, roots).map((root) => [root])]) {
        const whole = [...path, ...end];
        const broken = brokenRule(whole, { now, skewMs });
        if (!broken) return { ok: true, path: whole };
        if (!nearest || rankOf(broken.reason) > rankOf(nearest.reason)) nearest = { ok: false, ...broken };
      }
      const unused = intermediates.filter((link) => !path.some((seen) => seen.fingerprint === link.fingerprint));
      for (const issuer of issuersOf(top, unused)) longer.push([...path, issuer]);
    }
    paths = longer;
  }
  if (nearest) return nearest;
  const at = highest.at(-1) ?? leaf;
  return { ok: false, reason: highest.length === 1 ? 'no_issuer' : 'no_root', at, how: '' };
}

/** Ranks failures by how far a path came: a later rule is checked only if all before it are kept. */
export const rankOf = (reason: PathFailure): number => (PATH_RULES as readonly string[]).indexOf(reason);

/** Whether a path leads to a root, whatever rules it breaks. */
export const reachesRoot = (result: PathResult): boolean => result.ok || rankOf(result.reason) >= 0;

/** Whether a path leads to a root and each certificate on it is valid now, whatever other rules it breaks. */
export const reachesRootInTime = (result: PathResult): boolean =>
  reachesRoot(result) && (result.ok || !(result.reason === 'expired_link' || result.reason === 'not_yet_valid_link'));

/**
 * Leaf first, then each issuer after what it issued; self-signed certificates and duplicates are dropped, unrelated
 * ones stay at the end so that a later check can name them.
 */
export function orderChain(certificates: readonly Certificate[]): Certificate[] {
  const left = new Map<string, Certificate>();
  for (const certificate of certificates) if (!certificate.selfSigned) left.set(certificate.fingerprint, certificate);
  const all = [...left.values()];
  const leaf =
    all.find(({ isCa }) => !isCa) ?? all.find((one) => !all.some((other) => other !== one && other.isIssuedBy(one)));
  const ordered: Certificate[] = [];
  for (let next: Certificate | undefined = leaf ?? all[0]; next; ) {
    const current: Certificate = next;
    ordered.push(current);
    left.delete(current.fingerprint);
    next = [...left.values()].find((candidate) => current.isIssuedBy(candidate));
  }
  return [...ordered, ...left.values()];
}

/** Extensions of a trust anchor that decide which chains verify under it (RFC 5280 §6.1, §4.2.1). */
const DECISIVE = new Set([
  '2.5.29.14', // subject key identifier
  '2.5.29.15', // key usage
  '2.5.29.19', // basic constraints
  '2.5.29.30', // name constraints
  '2.5.29.32', // certificate policies
  '2.5.29.33', // policy mappings
  '2.5.29.36', // policy constraints
  '2.5.29.37', // extended key usage
  '2.5.29.54', // inhibit any policy
]);

const known = new WeakMap<Certificate, string>();

/**
 * The trust anchor that a root certificate represents, as a SHA-256 in hex: subject, issuer, public key and every
 * extension that decides which chains verify. Two roots with equal anchors verify the same chains; only their dates
 * differ.
 */
export function anchorOf(certificate: Certificate): string {
  let anchor = known.get(certificate);
  if (anchor === undefined) {
    const { subject, issuer, publicKey, extensions } = readFields(certificate.der);
    const decisive = extensionsIn(extensions)
      .filter(({ id, critical }) => critical || DECISIVE.has(id))
      .map(({ id, critical, value }) => `${id}/${critical}/${value.toString('hex')}`)
      .sort();
    const fields = [subject, issuer, publicKey].map(({ raw }) => raw.toString('hex'));
    anchor = hash('sha256', [...fields, ...decisive].join(' '), 'hex');
    known.set(certificate, anchor);
  }
  return anchor;
}

/** True if both lists represent the same trust anchors, whatever the dates of their certificates. */
export function sameAnchors(a: readonly Certificate[], b: readonly Certificate[]): boolean {
  const anchors = new Set(a.map(anchorOf));
  return anchors.size === new Set(b.map(anchorOf)).size && b.every((root) => anchors.has(anchorOf(root)));
}

/** One subject with one key. Subjects are compared as OpenSSL compares them: without case. */
export const authorityOf = ({ subject, publicKeyFingerprint }: Certificate): string =>
  `${publicKeyFingerprint} ${subject.toLowerCase()}`;

/** Envoy sorts larger bundles with an unstable algorithm, which loses the order of certificates of one authority. */
export const MOST_IN_ORDER = 16;

/** Leaf first, trust anchor last. */
type Path = readonly Certificate[];

interface Time {
  /** Epoch ms. */
  readonly now: number;
  /** How long after `now` a certificate may begin. */
  readonly skewMs: number;
}

interface Violation {
  /** The certificate that breaks the rule. */
  readonly at: Certificate;
  /** How it breaks the rule, as a part of a sentence about it. */
  readonly how: string;
}

interface PathCheck {
  readonly reason: PathRule;
  readonly run: (path: Path, time: Time) => Violation | undefined;
}

/** In the order in which a path is judged. Time comes last, so that it is the reason only if nothing else is wrong. */
const PATH_RULES = [
  'malformed',
  'not_ca',
  'issuer_key_usage',
  'issuer_key_type',
  'signature_algorithm',
  'critical_extension',
  'path_length',
  'issuer_eku',
  'name_constraints',
  'expired_link',
  'not_yet_valid_link',
] as const;

type PathRule = (typeof PATH_RULES)[number];

const ISSUER_CURVES: readonly string[] = ['P-224', 'P-256', 'P-384', 'P-521'];
/** OpenSSL at its security level 2 refuses smaller keys, Go's TLS larger ones. */
const RSA_BITS = { least: 2048, most: 8192 } as const;

/** RFC 5280 §6.1 for TLS clients, as strictly as the strictest of OpenSSL, BoringSSL and Go. */
const RULES: readonly PathCheck[] = [
  { reason: 'malformed', run: (path) => first(path, ({ defect }) => defect) },
  {
    reason: 'not_ca',
    run: ([, ...above]) =>
      first(above, (ca) => (isCa(ca, above) ? undefined : 'its basic constraints do not say CA:TRUE')),
  },
  {
    reason: 'issuer_key_usage',
    run: ([, ...above]) =>
      first(above, (ca) => (ca.allows(KEY_CERT_SIGN) ? undefined : 'its key usage lacks keyCertSign')),
  },
  { reason: 'issuer_key_type', run: ([, ...above]) => first(above, issuerKey) },
  {
    reason: 'signature_algorithm',
    run: (path) =>
      first(path.slice(0, -1), ({ hasCommonSignature }) =>
        hasCommonSignature ? undefined : 'it is signed with an algorithm that is weak or not common',
      ),
  },
  {
    reason: 'critical_extension',
    run: (path) =>
      first(path, ({ unsupported: [id] }) => id && `it has the extension ${id}, which is critical and not supported`),
  },
  { reason: 'path_length', run: pathLength },
  {
    reason: 'issuer_eku',
    run: ([, ...above]) =>
      first(above, ({ extendedKeyUsage: usages }) =>
        mayServeClients(usages) ? undefined : `its extended key usage is ${usages.join(', ')}, without clientAuth`,
      ),
  },
  { reason: 'name_constraints', run: nameConstraints },
  {
    reason: 'expired_link',
    run: (path, { now }) => first(path, ({ notAfter }) => (now >= notAfter ? 'it has expired' : undefined)),
  },
  {
    reason: 'not_yet_valid_link',
    run: (path, { now, skewMs }) =>
      first(path, ({ notBefore }) => (now + skewMs < notBefore ? 'it is not valid yet' : undefined)),
  },
];

/** The first rule that the path breaks, or undefined. */
function brokenRule(path: Path, time: Time): (Violation & { readonly reason: PathRule }) | undefined {
  for (const { reason, run } of RULES) {
    const violation = run(path, time);
    if (violation) return { ...violation, reason };
  }
  return undefined;
}

/**
 * Whether an extended key usage, empty for none, allows a TLS client. For OpenSSL and BoringSSL anyExtendedKeyUsage
 * does not.
 */
export const mayServeClients = (usages: readonly string[]): boolean =>
  usages.length === 0 || usages.includes(OID.clientAuth);

function first(path: Path, howOf: (certificate: Certificate) => string | undefined): Violation | undefined {
  for (const at of path) {
    const how = howOf(at);
    if (how) return { at, how };
  }
  return undefined;
}

/** A root of version 1 has no extension to mark it as a CA. */
const isCa = (ca: Certificate, above: Path): boolean =>
  ca.isCa || (ca === above.at(-1) && ca.version === 1 && ca.selfSigned);

function issuerKey({ keyType }: Certificate): string | undefined {
  if (keyType.type === 'ec' && ISSUER_CURVES.includes(keyType.curve)) return undefined;
  if (keyType.type === 'rsa' && keyType.bits >= RSA_BITS.least && keyType.bits <= RSA_BITS.most) return undefined;
  if (keyType.type === 'other' && keyType.name === 'ed25519') return undefined;
  return `its key is ${describeKeyType(keyType)}`;
}

/** Each CA below one with a path length counts, including self-issued ones: Go counts those, RFC 5280 does not. */
function pathLength([, ...above]: Path): Violation | undefined {
  for (const [below, at] of above.entries()) {
    if (at.pathLength === undefined || below <= at.pathLength) continue;
    return { at, how: `its path length is ${at.pathLength}, and ${below} CAs are below it` };
  }
  return undefined;
}

function nameConstraints(path: Path): Violation | undefined {
  for (const [height, ca] of path.entries()) {
    const constraints = ca.nameConstraints;
    if (!constraints) continue;
    if (constraints.unsupported) {
      return { at: ca, how: `it constrains ${constraints.unsupported}, which is not supported` };
    }
    for (const [depth, below] of path.slice(0, height).entries()) {
      const violation = violationOf(constraints, below.constrained(depth === 0));
      if (violation) return { at: ca, how: `by its name constraints ${violation}` };
    }
  }
  return undefined;
}
