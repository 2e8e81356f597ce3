import { reasonOf } from '../problem.ts';
import type { ConditionStatus, PublicationStatus, UpstreamStatus } from '../status.ts';

/** What was found at the upstreams of a publication. */
export interface CheckedUpstreams {
  /** Every upstream that is checked; undefined while that is not known. */
  readonly addresses: readonly string[] | undefined;
  /** Those that were checked since the start of the agent. */
  readonly found: readonly UpstreamStatus[];
}

interface UpstreamVerdict {
  readonly status: ConditionStatus;
  readonly reason: string;
  readonly message: string;
}

/** The states that show another identity than the expected one. All others but `ok` prove nothing. */
const OTHERS: ReadonlySet<string> = new Set(['ERR_PROBE_UPSTREAM_ID', 'ERR_PROBE_UPSTREAM_UNTRUSTED']);

/** Whether an upstream presents what is expected; undefined if that is not known. */
export function isExpected({ state }: UpstreamStatus): boolean | undefined {
  return state === 'ok' ? true : OTHERS.has(state) ? false : undefined;
}

/**
 * The findings for the status. After a restart the earlier ones stay until the upstream is checked again, and a
 * follower, which checks nothing, repeats those of the leader.
 */
export function upstreamsOf(
  report: {
    readonly leading: boolean;
    readonly upstreams: CheckedUpstreams | undefined;
    readonly certificate: { readonly status?: unknown };
  },
  before: PublicationStatus | undefined,
): readonly UpstreamStatus[] {
  const { leading, upstreams, certificate } = report;
  if (!upstreams) return [];
  const earlier = (leading ? before : (certificate.status as PublicationStatus | undefined))?.upstreams ?? [];
  if (!leading || !upstreams.addresses) return earlier;
  return upstreams.addresses.flatMap(
    (address) => [...upstreams.found, ...earlier].find((one) => one.address === address) ?? [],
  );
}

/** The condition `UpstreamVerified`; none before the first check. */
export function verifiedUpstreams(upstreams: readonly UpstreamStatus[]): readonly UpstreamVerdict[] {
  if (upstreams.length === 0) return [];
  const count = upstreams.length;
  for (const [verdict, status, what] of [
    [false, 'False', 'another identity than the expected one'],
    [undefined, 'Unknown', 'an identity that could not be checked'],
  ] as const) {
    const [first, ...more] = upstreams.filter((one) => isExpected(one) === verdict);
    if (!first) continue;
    const number = more.length === 0 ? '' : `${more.length + 1} of ${count} upstreams have ${what}. `;
    return [{ status, reason: reasonOf(first.state), message: `${number}${first.state}: ${first.message}` }];
  }
  const message = `${count === 1 ? 'The upstream presents' : `All ${count} upstreams present`} the expected identity.`;
  return [{ status: 'True', reason: 'IdentitiesExpected', message }];
}
