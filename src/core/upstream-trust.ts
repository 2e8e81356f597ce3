import type { Identity } from '../mesh/identity.ts';
import type { Certificate } from '../pki/certificate.ts';
import type { Problem } from './problem.ts';
import { decideTrust, namedRoots, type RootTimes, type TrustDecision, type TrustInput } from './trust.ts';
import { verifyBundle } from './verify.ts';

/** On the CA Secret: the trust domain of the upstreams, if it is not that of the identity. */
export const UPSTREAM_TRUST_DOMAIN_ANNOTATION = 'meshcert.dev/upstream-trust-domain';

/** The published trust in upstreams of another trust domain. */
export interface PublishedUpstreamTrust {
  readonly trustDomain: string;
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
}

export interface UpstreamTrustDecision {
  readonly trustDomain: string;
  readonly trust: TrustDecision;
  /** Why the bundle must not be written: nobody's leaf is verified by it here, so its own checks are all there is. */
  readonly refused: Problem | undefined;
}

/**
 * The bundle for upstreams of another trust domain; undefined if they are in that of the identity. Roots of two
 * domains never meet: a published bundle of a third domain is not retained.
 */
export function decideUpstreamTrust(
  identity: Identity | undefined,
  published: PublishedUpstreamTrust | undefined,
  rest: Pick<TrustInput, 'now' | 'retainMs' | 'withdrawn' | 'leafLifetimeMs'>,
): UpstreamTrustDecision | undefined {
  const wanted = identity
    ? identity.upstream
    : published && { trustDomain: published.trustDomain, roots: namedRoots(published.bundle, published.since) };
  if (!wanted) return undefined;
  const { trustDomain } = wanted;
  const before = published?.trustDomain === trustDomain ? published : undefined;
  const trust = decideTrust({
    ...rest,
    named: wanted.roots,
    published: before?.bundle ?? [],
    since: before?.since ?? new Map(),
  });
  const problem = trust.problem ?? verifyBundle(trust.bundle);
  const refused = problem && { code: problem.code, message: `trust domain ${trustDomain}: ${problem.message}` };
  return { trustDomain, trust, refused };
}
