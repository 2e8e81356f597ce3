import type { Certificate } from '../../pki/certificate.ts';
import { lifetimeOf } from '../schedule.ts';

/** A CA certificate is ending when a tenth of its life is left, thirty days at most: long-lived CAs need planning. */
const ENDING_OF_LIFE = 0.1;
const ENDING_MS = 30 * 86_400_000;

export interface IssuerEnd {
  /** The certificate above the leaf that ends first. */
  readonly certificate: Certificate;
  /** Epoch ms from which it counts as ending. */
  readonly endingAt: number;
}

/** Which certificate above the leaf ends first. `path` is leaf to root; undefined if it has only one certificate. */
export function issuerEndOf(path: readonly Certificate[]): IssuerEnd | undefined {
  const [certificate] = path.slice(1).sort((a, b) => a.notAfter - b.notAfter);
  if (!certificate) return undefined;
  const { notBefore, notAfter } = certificate;
  const endingAt = notAfter - Math.min(ENDING_MS, (notAfter - notBefore) * ENDING_OF_LIFE);
  return { certificate, endingAt: Math.round(endingAt) };
}

/**
 * True if publishing a leaf with the path `next` in place of one with the path `current`, both leaf to root, gains
 * something: the new one is valid for longer, has other names, or has another issuer. CAs that shorten a leaf to their
 * own end issue one after another that gains nothing, and each publication makes the gateway reconfigure itself.
 */
export function isGain(next: readonly Certificate[], current: readonly Certificate[]): boolean {
  const ids = (path: readonly Certificate[]) => path.slice(1).map(({ fingerprint }) => fingerprint);
  return (
    lifetimeOf(next).notAfter > lifetimeOf(current).notAfter ||
    ids(next).join() !== ids(current).join() ||
    JSON.stringify(next[0]?.names) !== JSON.stringify(current[0]?.names)
  );
}
