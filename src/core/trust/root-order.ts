import { authorityOf } from '../../pki/anchor.ts';
import type { Certificate } from '../../pki/certificate.ts';
import { SKEW_MS } from '../verify/checks.ts';

/**
 * The order of roots matters because Envoy's BoringSSL takes the first root whose subject and key identifier match, and
 * gives up if that one has expired or is not valid yet. In bundles of more than about 16 roots it even sorts them by an
 * unstable algorithm. Therefore roots that can replace each other are never published together.
 */

/** The root that ends last comes first, so that an expired root never precedes a valid one. */
export function newestFirst(a: Certificate, b: Certificate): number {
  return b.notAfter - a.notAfter || b.notBefore - a.notBefore || (a.fingerprint < b.fingerprint ? -1 : 1);
}

/**
 * Epoch ms from which every gateway node considers `root` valid, although its clock may be behind; until then it
 * relies on `fallback`, so the wait is never longer than half of the time that both are valid.
 */
const settledAt = (root: Certificate, fallback: Certificate): number =>
  root.notBefore + Math.max(0, Math.min(SKEW_MS, (fallback.notAfter - root.notBefore) / 2));

export interface Chosen {
  readonly root: Certificate;
  /** Epoch ms at which another root of the anchor is chosen, or none. */
  readonly until: number;
}

/** Of roots that are the same trust anchor, the one to publish: the last to end, once every gateway node accepts it. */
export function chooseRoot(anchor: readonly Certificate[], now: number): Chosen | undefined {
  const [only] = anchor;
  if (anchor.length === 1 && only) return now < only.notAfter ? { root: only, until: only.notAfter } : undefined;
  const root = rootAt(anchor, now);
  if (!root) return undefined;
  const until = anchor
    .flatMap((one) => [one.notBefore, one.notAfter, ...anchor.map((other) => settledAt(one, other))])
    .filter((at) => now < at && rootAt(anchor, at) !== root);
  return { root, until: Math.min(...until) };
}

function rootAt(anchor: readonly Certificate[], now: number): Certificate | undefined {
  const alive = anchor.filter(({ notAfter }) => now < notAfter).sort(newestFirst);
  const valid = alive.filter(({ notBefore }) => notBefore <= now);
  if (valid.length === 0) return alive.sort((a, b) => a.notBefore - b.notBefore)[0];
  return valid.find((root) =>
    valid.every((other) => other.notBefore >= root.notBefore || now >= settledAt(root, other)),
  );
}

export interface Ordered {
  readonly bundle: readonly Certificate[];
  /** Epoch ms at which the order changes by itself. */
  readonly until: number;
}

/** Newest first, except that a root that is not settled yet follows the older ones of its subject and key. */
export function orderRoots(bundle: readonly Certificate[], now: number): Ordered {
  const ordered = orderAt(bundle, now);
  const until = bundle
    .flatMap((root) => relatives(root, bundle).map((other) => settledAt(root, other)))
    .filter((at) => now < at && orderAt(bundle, at).some((root, n) => root !== ordered[n]));
  return { bundle: ordered, until: Math.min(...until) };
}

function orderAt(bundle: readonly Certificate[], now: number): readonly Certificate[] {
  const newest = [...bundle].sort(newestFirst);
  const isYoung = (root: Certificate) =>
    relatives(root, bundle).some(
      (other) => other.notBefore < root.notBefore && other.notBefore <= now && now < settledAt(root, other),
    );
  return [...newest.filter((root) => !isYoung(root)), ...newest.filter(isYoung)];
}

/**
 * Epoch ms at which `root` leaves the bundle although it is still valid; undefined if it stays until its end. It
 * leaves if another root with the same subject and key outlives it, although the two do not verify the same chains:
 * one leaf lifetime before its end, but never before nine tenths of the time that both are valid have passed, so that
 * the mesh has long signed under the other one.
 */
export function leavesAt(
  root: Certificate,
  bundle: readonly Certificate[],
  leafLifetimeMs: number,
): number | undefined {
  const times = relatives(root, bundle)
    .filter(({ notAfter }) => notAfter > root.notAfter)
    .map(({ notBefore }) => {
      const both = root.notAfter - Math.max(notBefore, root.notBefore);
      return Math.ceil(root.notAfter - Math.min(leafLifetimeMs, both / 10));
    });
  return times.length === 0 ? undefined : Math.min(...times);
}

const relatives = (root: Certificate, bundle: readonly Certificate[]): readonly Certificate[] =>
  bundle.filter((other) => other !== root && authorityOf(other) === authorityOf(root));
