import type { Certificate } from './certificate.ts';

export type PathFailure = 'no_issuer' | 'no_root' | 'expired_link' | 'not_yet_valid_link';

export type PathResult =
  | { readonly ok: true; readonly path: readonly Certificate[] }
  | { readonly ok: false; readonly reason: PathFailure; readonly at: Certificate };

/** Deepest path that is followed; meshes have two to four links. */
const DEEPEST = 10;
/** Signature checks a search may cost: many same-named roots must not stall it (spire issue 4415). */
const MOST_CHECKS = 1000;

/**
 * A path leaf..root whose every link is valid at `now`, the shortest of several. Every member of `roots` ends a path,
 * self-signed or not, as in Envoy.
 *
 * When there is none: `expired_link` or `not_yet_valid_link` name the certificate whose time alone stands in the way;
 * `no_issuer` says that nothing given issued the leaf; `no_root` names the highest certificate that was reached.
 * `skewMs` lets links begin that much after `now`.
 */
export function findPath(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
  skewMs = 0,
): PathResult {
  let checks = 0;
  let untimely: { reason: PathFailure; at: Certificate } | undefined;
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
        const wrong = whole.find((link) => now + skewMs < link.notBefore || now >= link.notAfter);
        if (!wrong) return { ok: true, path: whole };
        untimely ??= { reason: now >= wrong.notAfter ? 'expired_link' : 'not_yet_valid_link', at: wrong };
      }
      const unused = intermediates.filter((link) => !path.some((seen) => seen.fingerprint === link.fingerprint));
      for (const issuer of issuersOf(top, unused)) longer.push([...path, issuer]);
    }
    paths = longer;
  }
  if (untimely) return { ok: false, ...untimely };
  const at = highest.at(-1) ?? leaf;
  return { ok: false, reason: highest.length === 1 ? 'no_issuer' : 'no_root', at };
}

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
