import type { Certificate } from '../pki/certificate.ts';
import type { Crl } from '../pki/crl.ts';
import type { PrivateKey } from '../pki/key.ts';

export const PREFLIGHT_CODES = ['ERR_VERIFY_PREFLIGHT', 'ERR_VERIFY_PREFLIGHT_FAILED'] as const;

/** The input of a preflight handshake. */
export interface Presented {
  readonly key: PrivateKey;
  /** Leaf first. */
  readonly chain: readonly Certificate[];
}

export type PreflightVerdict =
  | { readonly ok: true }
  | { readonly ok: false; readonly code: (typeof PREFLIGHT_CODES)[number]; readonly message: string };

/** The pair and the bundle that a decision needs a verdict on. */
export interface Proof {
  readonly pair: Presented;
  readonly bundle: readonly Certificate[];
  /** The server checks each certificate of the chain by these; absent: it checks no revocation. */
  readonly crls?: readonly Crl[] | undefined;
}

/**
 * Presents the pair in a TLS handshake to a server that trusts exactly this bundle. Never rejects: a handshake that
 * cannot be made is a refusal with ERR_VERIFY_PREFLIGHT_FAILED. It uses the real time, so it is passed in like the
 * clock.
 */
export type Preflight = (
  pair: Presented,
  bundle: readonly Certificate[],
  crls?: readonly Crl[],
) => Promise<PreflightVerdict>;

/** The same for the same chain, bundle and CRLs, in their order. */
export const preflightKey = (
  { chain }: Pick<Presented, 'chain'>,
  bundle: readonly Certificate[],
  crls: readonly Crl[] = [],
): string => [chain, bundle, crls].map((list) => list.map(({ fingerprint }) => fingerprint).join(',')).join(';');
