import type { Certificate } from '../../pki/certificate.ts';
import type { Crl } from '../../pki/crl.ts';
import type { Problem } from '../problem.ts';

/** A set leaves the gateway this long before it expires: Envoy refuses every upstream by an expired one. */
const LEAVES_BEFORE_MS = 60_000;

export type CrlChoice =
  /** `until`: when one of them no longer counts, epoch ms; undefined: they say no end. */
  | { readonly ok: true; readonly crls: readonly Crl[]; readonly until: number | undefined }
  /** `again`: when the answer may differ without any change, epoch ms. */
  | { readonly ok: false; readonly problem: Problem; readonly again: number | undefined };

/**
 * One current CRL for each authority, the newest of several, in the order of the authorities. With a CRL at all, Envoy
 * refuses each certificate of an authority that has none, so a set with a gap is no set.
 */
export function chooseCrls(named: readonly Crl[], authorities: readonly Certificate[], now: number): CrlChoice {
  const crls = new Map<string, Crl>();
  for (const authority of authorities) {
    const own = named.filter((crl) => crl.isNamedAfter(authority));
    const current = own.filter((crl) => crl.isCurrent(now) && now < leavesAt(crl));
    const newest = current.toSorted((a, b) => b.thisUpdate - a.thisUpdate)[0];
    if (!newest) {
      const next = own.map(({ thisUpdate }) => thisUpdate).filter((time) => time > now);
      const again = next.length === 0 ? undefined : Math.min(...next);
      return { ok: false, problem: gap(authority, own.length > 0), again };
    }
    crls.set(newest.fingerprint, newest);
  }
  const ends = [...crls.values()].map(leavesAt).filter(Number.isFinite);
  return { ok: true, crls: [...crls.values()], until: ends.length === 0 ? undefined : Math.min(...ends) };
}

const leavesAt = ({ nextUpdate = Number.POSITIVE_INFINITY }: Crl): number => nextUpdate - LEAVES_BEFORE_MS;

function gap({ subject }: Certificate, isStale: boolean): Problem {
  const effect = 'CRLs are not published, because the gateway would refuse every upstream';
  return isStale
    ? { code: 'ERR_CRL_EXPIRED', message: `the CRL of "${subject}" has expired or is not valid yet; ${effect}` }
    : { code: 'ERR_CRL_MISSING', message: `the mesh has no CRL of "${subject}"; ${effect}: add one for each CA` };
}
