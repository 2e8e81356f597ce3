import type { Certificate } from '../pki/certificate.ts';
import { type FailedPath, type PathFailure, rankOf } from '../pki/chain.ts';
import type { CheckSubject, ExpectedIdentity, PresentedPair } from './checks.ts';
import * as checks from './checks.ts';

interface CheckInfo {
  readonly code: VerifyCode;
  /** What is true when the check passes. */
  readonly title: string;
}

/** Returns the problem, or nothing. Without a leaf only the first kind can run. */
type VerifyCheck = CheckInfo &
  (
    | { readonly run: (pair: PresentedPair, bundle: readonly Certificate[]) => string | undefined }
    | { readonly runOnLeaf: (subject: CheckSubject) => string | undefined }
    | { readonly reasons: readonly PathFailure[]; readonly say: (failed: FailedPath, now: number) => string }
  );

export const VERIFY_CODES = [
  'ERR_VERIFY_EMPTY_CHAIN',
  'ERR_VERIFY_EMPTY_BUNDLE',
  'ERR_VERIFY_TOO_MANY',
  'ERR_VERIFY_TOO_LARGE',
  'ERR_VERIFY_VERSION',
  'ERR_VERIFY_LOADING',
  'ERR_VERIFY_KEY_TYPE',
  'ERR_VERIFY_KEY_MISMATCH',
  'ERR_VERIFY_EXPIRED',
  'ERR_VERIFY_NOT_YET_VALID',
  'ERR_VERIFY_SAN_FORM',
  'ERR_VERIFY_ID',
  'ERR_VERIFY_TRUST_DOMAIN',
  'ERR_VERIFY_EKU',
  'ERR_VERIFY_KEY_USAGE',
  'ERR_VERIFY_CHAIN_ORDER',
  'ERR_VERIFY_LEAF_KEY',
  'ERR_VERIFY_CHAIN_INCOMPLETE',
  'ERR_VERIFY_MALFORMED',
  'ERR_VERIFY_ISSUER_NOT_CA',
  'ERR_VERIFY_ISSUER_KEY_USAGE',
  'ERR_VERIFY_ISSUER_KEY_TYPE',
  'ERR_VERIFY_SIGNATURE_ALGORITHM',
  'ERR_VERIFY_CRITICAL_EXTENSION',
  'ERR_VERIFY_PATH_LENGTH',
  'ERR_VERIFY_ISSUER_EKU',
  'ERR_VERIFY_NAME_CONSTRAINTS',
  'ERR_VERIFY_LINK_EXPIRED',
] as const;

export type VerifyCode = (typeof VERIFY_CODES)[number];

/** In the order in which they run: the first that fails names the cause, later failures mostly follow from it. */
export const CHECKS: readonly VerifyCheck[] = [
  { code: 'ERR_VERIFY_EMPTY_CHAIN', title: 'the chain has a certificate', run: checks.emptyChain },
  { code: 'ERR_VERIFY_EMPTY_BUNDLE', title: 'there is a trust bundle', run: checks.emptyBundle },
  {
    code: 'ERR_VERIFY_TOO_MANY',
    title: 'chain and bundle are within the limits on certificates',
    run: checks.tooMany,
  },
  {
    code: 'ERR_VERIFY_TOO_LARGE',
    title: 'chain and bundle are within the size limits',
    run: checks.tooLarge,
  },
  { code: 'ERR_VERIFY_VERSION', title: 'Envoy loads the X.509 version of each certificate', run: checks.version },
  { code: 'ERR_VERIFY_LOADING', title: 'Envoy loads each certificate', run: checks.loading },
  { code: 'ERR_VERIFY_KEY_TYPE', title: 'Envoy loads this kind of key', runOnLeaf: checks.keyType },
  { code: 'ERR_VERIFY_KEY_MISMATCH', title: 'the key belongs to the leaf', runOnLeaf: checks.keyMismatch },
  { code: 'ERR_VERIFY_EXPIRED', title: 'the leaf has not expired', runOnLeaf: checks.expired },
  { code: 'ERR_VERIFY_NOT_YET_VALID', title: 'the leaf is already valid', runOnLeaf: checks.notYetValid },
  { code: 'ERR_VERIFY_SAN_FORM', title: 'the leaf has a name in the form of the mesh', runOnLeaf: checks.sanForm },
  { code: 'ERR_VERIFY_ID', title: 'the leaf is for the expected identity', runOnLeaf: checks.id },
  {
    code: 'ERR_VERIFY_TRUST_DOMAIN',
    title: 'the identity is in the expected trust domain',
    runOnLeaf: checks.trustDomain,
  },
  { code: 'ERR_VERIFY_EKU', title: 'the leaf may authenticate a client', runOnLeaf: checks.clientAuth },
  { code: 'ERR_VERIFY_KEY_USAGE', title: 'the leaf may sign a handshake', runOnLeaf: checks.keyUsage },
  { code: 'ERR_VERIFY_CHAIN_ORDER', title: 'the chain is in order, leaf first', runOnLeaf: checks.chainOrder },
  { code: 'ERR_VERIFY_LEAF_KEY', title: 'the leaf has a key of its own, and an issuer', runOnLeaf: checks.leafKey },
  {
    code: 'ERR_VERIFY_CHAIN_INCOMPLETE',
    title: 'the chain reaches a root in the bundle',
    reasons: ['no_issuer', 'no_root'],
    say: checks.chainIncomplete,
  },
  {
    code: 'ERR_VERIFY_MALFORMED',
    title: 'every upstream can read each certificate of the chain',
    reasons: ['malformed'],
    say: checks.malformed,
  },
  onPath('ERR_VERIFY_ISSUER_NOT_CA', 'every issuer is a CA', 'not_ca'),
  onPath('ERR_VERIFY_ISSUER_KEY_USAGE', 'every issuer may sign certificates', 'issuer_key_usage'),
  onPath('ERR_VERIFY_ISSUER_KEY_TYPE', 'every issuer has a key that upstreams can verify with', 'issuer_key_type'),
  onPath(
    'ERR_VERIFY_SIGNATURE_ALGORITHM',
    'every signature has a strong algorithm that upstreams support',
    'signature_algorithm',
  ),
  onPath('ERR_VERIFY_CRITICAL_EXTENSION', 'no critical extension is unsupported', 'critical_extension'),
  onPath('ERR_VERIFY_PATH_LENGTH', 'the chain is not longer than an issuer allows', 'path_length'),
  onPath('ERR_VERIFY_ISSUER_EKU', 'every issuer may issue to clients', 'issuer_eku'),
  onPath('ERR_VERIFY_NAME_CONSTRAINTS', 'the name constraints of every issuer are satisfied', 'name_constraints'),
  {
    code: 'ERR_VERIFY_LINK_EXPIRED',
    title: 'no certificate above the leaf has expired',
    reasons: ['expired_link', 'not_yet_valid_link'],
    say: checks.linkExpired,
  },
];

function onPath(code: VerifyCode, title: string, reason: PathFailure): VerifyCheck {
  return { code, title, reasons: [reason], say: checks.brokenPath };
}

export type Verification =
  | {
      readonly ok: true;
      /** Leaf to root. */
      readonly path: readonly Certificate[];
    }
  | { readonly ok: false; readonly code: VerifyCode; readonly message: string };

export interface CheckResult {
  readonly code: VerifyCode;
  readonly title: string;
  /** `skipped`: there was nothing to check, such as no leaf. */
  readonly outcome: 'ok' | 'failed' | 'skipped';
  readonly message?: string;
}

/** Every check and its finding, for people. */
export function examine(
  pair: PresentedPair,
  bundle: readonly Certificate[],
  expected: ExpectedIdentity,
  now: number,
): CheckResult[] {
  const subject = subjectFor(pair, bundle, expected, now);
  return CHECKS.map((check) => {
    const { code, title } = check;
    const keyless = expected.keyless && code === 'ERR_VERIFY_KEY_MISMATCH';
    if (keyless || !canRun(check, subject)) return { code, title, outcome: 'skipped' };
    const message = ask(check, pair, bundle, subject);
    return message === undefined ? { code, title, outcome: 'ok' } : { code, title, outcome: 'failed', message };
  });
}

/** A check of the path says nothing about a path that failed an earlier one, or about none. */
function canRun(check: VerifyCheck, subject: CheckSubject | undefined): boolean {
  if ('run' in check) return true;
  if (!subject || 'runOnLeaf' in check || subject.path.ok) return subject !== undefined;
  const { reason } = subject.path;
  return check.reasons.some((one) => rankOf(one) <= rankOf(reason));
}

/**
 * Whether this pair may be published with this bundle. The same answer serves publishing, reading back, `inspect`
 * and `doctor`. Pure; `now` in epoch milliseconds.
 */
export function verify(
  pair: PresentedPair,
  bundle: readonly Certificate[],
  expected: ExpectedIdentity,
  now: number,
): Verification {
  const subject = subjectFor(pair, bundle, expected, now);
  for (const check of CHECKS) {
    const message = ask(check, pair, bundle, subject);
    if (message !== undefined) return { ok: false, code: check.code, message };
  }
  if (!subject?.path.ok) throw new TypeError('every check passed, but there is no path to a root');
  return { ok: true, path: subject.path.path };
}

/** Whether a bundle may be published that no chain of ours leads to: what a gateway must be able to load. */
export function verifyBundle(
  bundle: readonly Certificate[],
): { readonly code: VerifyCode; readonly message: string } | undefined {
  for (const check of CHECKS) {
    if (!('run' in check) || check.code === 'ERR_VERIFY_EMPTY_CHAIN') continue;
    const message = check.run({ key: undefined, chain: [] }, bundle);
    if (message !== undefined) return { code: check.code, message };
  }
  return undefined;
}

function ask(
  check: VerifyCheck,
  pair: PresentedPair,
  bundle: readonly Certificate[],
  subject: CheckSubject | undefined,
): string | undefined {
  if ('run' in check) return check.run(pair, bundle);
  if (!subject) return undefined;
  if ('runOnLeaf' in check) return check.runOnLeaf(subject);
  const { path, now } = subject;
  return !path.ok && check.reasons.includes(path.reason) ? check.say(path, now) : undefined;
}

function subjectFor(
  pair: PresentedPair,
  bundle: readonly Certificate[],
  expected: ExpectedIdentity,
  now: number,
): CheckSubject | undefined {
  const [leaf] = pair.chain;
  return leaf && checks.subjectOf(pair, leaf, bundle, expected, now);
}
