import type { Certificate } from '../pki/certificate.ts';
import type { Crl } from '../pki/crl.ts';
import type { Problem } from './problem.ts';

/** A set leaves the gateway this long before it expires: Envoy refuses every upstream by an expired one. */
const LEAVES_BEFORE_MS = 60_000;
/** Of PEM, which is a third larger in base64: a request to the API server may have 1.5 MB. */
const MOST_BYTES = 768 * 1024;

export type CrlChoice =
  | {
      readonly ok: true;
      readonly crls: readonly Crl[];
      /** When one of them no longer counts, epoch ms; undefined: they say no end. */
      readonly until: number | undefined;
      /** Why a newer CRL of one of the authorities is not among them. */
      readonly problem: Problem | undefined;
    }
  /** `again`: when the answer may differ without any change, epoch ms. */
  | { readonly ok: false; readonly problem: Problem; readonly again: number | undefined };

/**
 * One usable, current CRL for each authority, the newest of several, in the order of the authorities. With a CRL at
 * all, Envoy refuses each certificate of an authority that has none, so a set with a gap is no set.
 */
export function chooseCrls(named: readonly Crl[], authorities: readonly Certificate[], now: number): CrlChoice {
  const chosen = new Map<Certificate, Crl>();
  let skipped: Problem | undefined;
  for (const authority of authorities) {
    if (!authority.selfSigned && !authorities.some((one) => authority.isIssuedBy(one))) {
      return refused(
        `"${authority.subject}" is not self-signed, and its issuer is not in the bundle: no CRL covers it`,
      );
    }
    const own = named.filter((crl) => crl.isNamedAfter(authority)).toSorted(newestFirst);
    const usable = own.filter((crl) => crl.refusedFor(authority) === undefined);
    const newest = usable.find((crl) => crl.isCurrent(now) && now < leavesAt(crl));
    const wrong = own.filter((crl) => !authorities.some((one) => !crl.refusedFor(one)));
    const [newestWrong] = wrong.toSorted((a, b) => Number(b.isCurrent(now)) - Number(a.isCurrent(now)));
    const why = newestWrong && `the CRL of "${authority.subject}" is not used: ${newestWrong.refusedFor(authority)}`;
    if (newest) {
      chosen.set(authority, newest);
      if (newestWrong?.isCurrent(now) && why && newestFirst(newestWrong, newest) < 0)
        skipped ??= { code: 'ERR_CRL_REFUSED', message: why };
      continue;
    }
    if (usable.length === 0 && why) return refused(why);
    const next = usable.map(({ thisUpdate }) => thisUpdate).filter((time) => time > now);
    const again = next.length === 0 ? undefined : Math.min(...next);
    return { ok: false, problem: gap(authority, usable.length > 0), again };
  }
  const crls = [...new Set(chosen.values())];
  for (const [authority, own] of chosen) {
    if (crls.some((crl) => crl !== own && crl.seemsToBeOf(authority))) {
      return refused(`several CAs have the name "${authority.subject}", and no key identifier says whose a CRL is`);
    }
  }
  const bytes = crls.reduce((sum, { pem }) => sum + pem.length, 0);
  if (bytes > MOST_BYTES) return refused(`together they have ${bytes} bytes, more than ${MOST_BYTES}`);
  const ends = crls.map(leavesAt).filter(Number.isFinite);
  return { ok: true, crls, until: ends.length === 0 ? undefined : Math.min(...ends), problem: skipped };
}

const newestFirst = (a: Crl, b: Crl): number =>
  b.thisUpdate - a.thisUpdate || Number((b.number ?? -1n) - (a.number ?? -1n));

const leavesAt = ({ nextUpdate = Number.POSITIVE_INFINITY }: Crl): number => nextUpdate - LEAVES_BEFORE_MS;

const EFFECT = 'CRLs are not published, because the gateway would refuse every upstream';

const refused = (why: string): CrlChoice => ({
  ok: false,
  problem: { code: 'ERR_CRL_REFUSED', message: `${EFFECT}: ${why}` },
  again: undefined,
});

function gap({ subject }: Certificate, isStale: boolean): Problem {
  return isStale
    ? { code: 'ERR_CRL_EXPIRED', message: `the CRL of "${subject}" has expired or is not valid yet; ${EFFECT}` }
    : { code: 'ERR_CRL_MISSING', message: `the mesh has no CRL of "${subject}"; ${EFFECT}: add one for each CA` };
}
