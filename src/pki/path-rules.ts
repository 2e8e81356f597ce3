import type { Certificate } from './certificate.ts';
import { KEY_CERT_SIGN, OID } from './extensions.ts';
import { describeKeyType } from './key-type.ts';
import { violationOf } from './name-constraints.ts';

/** Leaf first, trust anchor last. */
type Path = readonly Certificate[];

export interface Time {
  /** Epoch ms. */
  readonly now: number;
  /** How long after `now` a certificate may begin. */
  readonly skewMs: number;
}

export interface Violation {
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
export const PATH_RULES = [
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

export type PathRule = (typeof PATH_RULES)[number];

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
export function brokenRule(path: Path, time: Time): (Violation & { readonly reason: PathRule }) | undefined {
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
