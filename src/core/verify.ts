import type { Certificate } from '../pki/certificate.ts';
import type { Pair, Subject, Wish } from './checks.ts';
import * as checks from './checks.ts';

export type { Pair, Wish } from './checks.ts';

interface About {
  readonly code: VerifyCode;
  /** What is well when the check passes. */
  readonly title: string;
}

/** Returns what is wrong, or undefined. Without a leaf only the first kind can be asked. */
type Check = About &
  (
    | { readonly run: (pair: Pair, bundle: readonly Certificate[]) => string | undefined }
    | { readonly runOnLeaf: (subject: Subject) => string | undefined }
  );

export const VERIFY_CODES = [
  'ERR_VERIFY_EMPTY_CHAIN',
  'ERR_VERIFY_EMPTY_BUNDLE',
  'ERR_VERIFY_TOO_MANY',
  'ERR_VERIFY_TOO_LARGE',
  'ERR_VERIFY_KEY_TYPE',
  'ERR_VERIFY_KEY_MISMATCH',
  'ERR_VERIFY_EXPIRED',
  'ERR_VERIFY_NOT_YET_VALID',
  'ERR_VERIFY_SAN_FORM',
  'ERR_VERIFY_ID',
  'ERR_VERIFY_TRUST_DOMAIN',
  'ERR_VERIFY_EKU',
  'ERR_VERIFY_CHAIN_ORDER',
  'ERR_VERIFY_CHAIN_INCOMPLETE',
  'ERR_VERIFY_LINK_EXPIRED',
] as const;

export type VerifyCode = (typeof VERIFY_CODES)[number];

/** In the order in which they are asked: the first that fails names the cause, later ones mostly follow from it. */
export const CHECKS: readonly Check[] = [
  { code: 'ERR_VERIFY_EMPTY_CHAIN', title: 'there is a certificate', run: checks.emptyChain },
  { code: 'ERR_VERIFY_EMPTY_BUNDLE', title: 'there is a trust bundle', run: checks.emptyBundle },
  {
    code: 'ERR_VERIFY_TOO_MANY',
    title: 'chain and bundle have few enough certificates',
    run: checks.tooMany,
  },
  {
    code: 'ERR_VERIFY_TOO_LARGE',
    title: 'chain and bundle are small enough',
    run: checks.tooLarge,
  },
  { code: 'ERR_VERIFY_KEY_TYPE', title: 'Envoy loads this kind of key', runOnLeaf: checks.keyType },
  { code: 'ERR_VERIFY_KEY_MISMATCH', title: 'the key is the key of the leaf', runOnLeaf: checks.keyMismatch },
  { code: 'ERR_VERIFY_EXPIRED', title: 'the leaf has not expired', runOnLeaf: checks.expired },
  { code: 'ERR_VERIFY_NOT_YET_VALID', title: 'the leaf is already valid', runOnLeaf: checks.notYetValid },
  { code: 'ERR_VERIFY_SAN_FORM', title: 'the leaf names its holder as the mesh does', runOnLeaf: checks.sanForm },
  { code: 'ERR_VERIFY_ID', title: 'the leaf is for the identity that is due', runOnLeaf: checks.id },
  { code: 'ERR_VERIFY_TRUST_DOMAIN', title: 'the identity is in its trust domain', runOnLeaf: checks.trustDomain },
  { code: 'ERR_VERIFY_EKU', title: 'the leaf may authenticate a client', runOnLeaf: checks.clientAuth },
  { code: 'ERR_VERIFY_CHAIN_ORDER', title: 'the chain is in order, leaf first', runOnLeaf: checks.chainOrder },
  {
    code: 'ERR_VERIFY_CHAIN_INCOMPLETE',
    title: 'the chain reaches a root in the bundle',
    runOnLeaf: checks.chainIncomplete,
  },
  { code: 'ERR_VERIFY_LINK_EXPIRED', title: 'every link above the leaf is valid', runOnLeaf: checks.linkExpired },
];

export type Verdict =
  | {
      readonly ok: true;
      /** Leaf to root. */
      readonly path: readonly Certificate[];
    }
  | { readonly ok: false; readonly code: VerifyCode; readonly message: string };

export interface Finding {
  readonly code: VerifyCode;
  readonly title: string;
  /** `skipped`: there was nothing to look at, such as a leaf. */
  readonly outcome: 'ok' | 'failed' | 'skipped';
  readonly message?: string;
}

/** Every check and what it found, for people. */
export function examine(pair: Pair, bundle: readonly Certificate[], wish: Wish, now: number): Finding[] {
  const subject = subjectFor(pair, bundle, wish, now);
  return CHECKS.map((check) => {
    const { code, title } = check;
    const keyless = wish.keyless && code === 'ERR_VERIFY_KEY_MISMATCH';
    if (keyless || ('runOnLeaf' in check && !subject)) return { code, title, outcome: 'skipped' };
    const message = ask(check, pair, bundle, subject);
    return message === undefined ? { code, title, outcome: 'ok' } : { code, title, outcome: 'failed', message };
  });
}

/**
 * Whether this pair may be published with this bundle. The same answer serves publishing, reading back, `inspect`
 * and `doctor`. Pure; `now` in epoch milliseconds.
 */
export function verify(pair: Pair, bundle: readonly Certificate[], wish: Wish, now: number): Verdict {
  const subject = subjectFor(pair, bundle, wish, now);
  for (const check of CHECKS) {
    const message = ask(check, pair, bundle, subject);
    if (message !== undefined) return { ok: false, code: check.code, message };
  }
  if (!subject?.path.ok) throw new TypeError('every check passed, and yet there is no path to a root');
  return { ok: true, path: subject.path.path };
}

function ask(
  check: Check,
  pair: Pair,
  bundle: readonly Certificate[],
  subject: Subject | undefined,
): string | undefined {
  if ('run' in check) return check.run(pair, bundle);
  return subject && check.runOnLeaf(subject);
}

function subjectFor(pair: Pair, bundle: readonly Certificate[], wish: Wish, now: number): Subject | undefined {
  const [leaf] = pair.chain;
  return leaf && checks.subjectOf(pair, leaf, bundle, wish, now);
}
