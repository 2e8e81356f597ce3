import type { Certificate } from './certificate.ts';
import { brokenRule, PATH_RULES, type PathRule } from './path-rules.ts';

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
