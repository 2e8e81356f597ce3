import type { Expectation } from '../mesh/adapter.ts';
import { type Identity, leafOf, sameLeaf, sameRoots } from '../mesh/identity.ts';
import type { Certificate } from '../pki/certificate.ts';
import { anchorOf, findPath, reachesRoot } from '../pki/chain.ts';
import type { Crl } from '../pki/crl.ts';
import type { PrivateKey } from '../pki/key.ts';
import { chooseCrls } from './crls.ts';
import { decideHold, type HoldDecision, type ProbeOutcome } from './hold.ts';
import type { Desired } from './plan.ts';
import type { PreflightVerdict, Proof } from './preflight.ts';
import { type Problem, reasonOf } from './problem.ts';
import {
  type Condition,
  type ConditionStatus,
  isProgress,
  type PublicationStatus,
  type UpstreamStatus,
} from './status.ts';
import {
  decideTrust,
  type IssuerEnd,
  isGain,
  issuerEndOf,
  namedRoots,
  type RootTimes,
  type TrustDecision,
} from './trust.ts';
import { decideUpstreamTrust, type PublishedUpstreamTrust, type UpstreamTrustDecision } from './upstream-trust.ts';
import { verify } from './verify.ts';

/** What is published in the cluster for one MeshCertificate, as far as it can be read. */
export interface Publication {
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
  readonly identity: { readonly key: PrivateKey; readonly chain: readonly Certificate[] } | undefined;
  /** Trust in upstreams of another trust domain; absent: `bundle` verifies upstreams too. */
  readonly upstream?: PublishedUpstreamTrust | undefined;
  /** Absent: none. */
  readonly crls?: readonly Crl[] | undefined;
  /** The Secrets among them that the agent wrote. */
  readonly secrets: readonly { readonly name: string; readonly uid: string }[];
  /** Objects that exist with the wrong content; a missing object is no problem. */
  readonly problems: readonly { readonly object: string; readonly message: string }[];
}

/** Everything that one decision depends on; times in epoch milliseconds. */
export interface Situation {
  readonly spec: {
    readonly trust: { readonly retainMs: number; readonly holdMs: number; readonly withdrawn: readonly string[] };
  };
  readonly expectation: Expectation;
  /** The newest identity from the mesh; absent until it has answered. */
  readonly candidate: Identity | undefined;
  readonly probe: ProbeOutcome;
  /** CRLs that the mesh names, or that are published while it has not answered; undefined: they are not asked for. */
  readonly crls?: readonly Crl[] | undefined;
  /** What OpenSSL said of a pair and a bundle in a handshake; undefined before it was asked. */
  readonly preflight: (proof: Proof) => PreflightVerdict | undefined;
  /** The published objects. */
  readonly published: Publication;
  /** The objects that publish this pair with this trust, or why a gateway would misread them. */
  readonly desired: (pair: {
    readonly identity: Identity;
    readonly bundle: readonly Certificate[];
    readonly since: RootTimes;
    readonly crls: readonly Crl[];
    readonly upstream: PublishedUpstreamTrust | undefined;
  }) => { readonly objects: readonly Desired[] } | { readonly problem: Problem };
  /** A new certificate was requested: it is published whether or not it gains anything. */
  readonly renewalAsked?: boolean | undefined;
  readonly now: number;
}

export interface Decision {
  /** The objects that should exist; undefined if no valid pair is known, and then nothing is written. */
  readonly desired: readonly Desired[] | undefined;
  /** The published pair, if it verifies under the published bundle. */
  readonly publishedIdentity: Identity | undefined;
  /** The pair in `desired`. */
  readonly identity: Identity | undefined;
  /** The roots that the pair is verified by. */
  readonly trust: TrustDecision;
  /** The roots that upstreams are verified by; `trust` itself unless they are in another trust domain. */
  readonly upstreamTrust: TrustDecision;
  readonly hold: HoldDecision | undefined;
  /** The candidate is valid, but ends no later than the published leaf and differs in nothing else. */
  readonly isIdle: boolean;
  /** Of `identity`: which certificate above its leaf ends first. */
  readonly issuerEnd: IssuerEnd | undefined;
  /** Why the candidate may never be published. A candidate that only waits until it is valid is not refused. */
  readonly refused: Problem | undefined;
  /** Why the candidate is not used; the published pair stays. */
  readonly problem: Problem | undefined;
  /** Why no CRLs are published although they are asked for, or not the newest ones. */
  readonly crlProblem: Problem | undefined;
  /** The handshake that must be made before a write can be decided. */
  readonly unproven: Proof | undefined;
  /** When to decide again without a change. */
  readonly nextLook: number | undefined;
}

/** The one decision: which objects should exist, given the identity from the mesh and the published state. Pure. */
export function decide(situation: Situation): Decision {
  const { candidate, published, spec, now } = situation;
  const current = verifiedPublication(situation);
  const judged = candidate && judge(situation, candidate, current);
  const accepted = judged && !judged.refused && !judged.unproven ? candidate : undefined;
  const trust = judged && accepted ? judged.trust : trustWithout(situation, judged, current?.identity);
  const isIdle =
    current !== undefined &&
    judged?.path !== undefined &&
    !situation.renewalAsked &&
    !sameLeaf(candidate, current.identity) &&
    sameRoots(trust.bundle, published.bundle) &&
    !isGain(judged.path, current.path);
  const hold =
    accepted && current && !isIdle && !sameLeaf(accepted, current.identity)
      ? decideHold({
          candidate: accepted,
          current: current.identity,
          publishedRoots: published.bundle
            .filter((root) => !isIn(trust.withdrawn, root))
            .map((root) => successorIn(trust.bundle, root)),
          since: trust.since,
          now,
          holdMs: spec.trust.holdMs,
          probe: situation.probe,
        })
      : undefined;
  const isCurrent = hold?.hold || isIdle || !accepted;
  const identity = isCurrent ? current?.identity : accepted;
  const path = isCurrent ? current?.path : judged?.path;
  const issuerEnd = path && issuerEndOf(path);
  const proven =
    identity && trust.bundle.length > 0
      ? isStranded(identity, trust)
        ? PROVEN
        : proofOf(situation, identity, trust.bundle)
      : undefined;
  const { bundle, since } = trust;
  const foreign = upstreamTrustFor(situation, accepted, current?.identity);
  const upstream = foreign && { trustDomain: foreign.trustDomain, ...foreign.trust };
  const revocation =
    identity && path && proven?.ok ? revocationOf(situation, identity, path, bundle, foreign) : undefined;
  const crls = revocation?.crls ?? [];
  const wanted =
    identity && proven?.ok && !foreign?.refused && !revocation?.unproven
      ? situation.desired({ identity, bundle, since, crls, upstream })
      : undefined;
  const wrong = judged && problemOf(judged);
  const unfit = proven && !proven.ok ? proven.refused : undefined;

  return {
    desired: wanted && 'objects' in wanted ? wanted.objects : undefined,
    publishedIdentity: current?.identity,
    identity,
    trust,
    upstreamTrust: foreign?.trust ?? trust,
    hold,
    isIdle,
    issuerEnd,
    refused: judged?.validFrom === undefined ? wrong : undefined,
    problem:
      wrong ??
      trust.problem ??
      foreign?.refused ??
      unfit ??
      (wanted && 'problem' in wanted ? wanted.problem : undefined),
    crlProblem: revocation?.problem,
    unproven: judged?.unproven ?? (proven && !proven.ok ? proven.unproven : undefined) ?? revocation?.unproven,
    nextLook: earliest(now, [
      trust.nextChangeAt,
      foreign?.trust.nextChangeAt,
      hold?.hold ? hold.until : undefined,
      identity ? leafOf(identity).notAfter : undefined,
      issuerEnd?.endingAt,
      judged?.validFrom,
      revocation?.nextLook,
    ]),
  };
}

/** The published identity with the roots that the mesh named when it was written: a restart continues from there. */
export function identityToContinue(situation: Situation): Identity | undefined {
  const { bundle, since, upstream } = situation.published;
  const { publishedIdentity } = decide({ ...situation, candidate: undefined });
  if (!publishedIdentity) return undefined;
  const { trustDomain = '' } = upstream ?? {};
  return {
    ...publishedIdentity,
    roots: namedRoots(bundle, since),
    ...(upstream ? { upstream: { trustDomain, roots: namedRoots(upstream.bundle, upstream.since) } } : {}),
  };
}

interface Revocation {
  /** What may be published; absent: none. */
  readonly crls?: readonly Crl[];
  readonly problem?: Problem | undefined;
  readonly unproven?: Proof;
  readonly nextLook?: number | undefined;
}

/** The CRLs for what is to be published, once a handshake accepts the pair by them; undefined: none are asked for. */
function revocationOf(
  { crls: named, preflight, now }: Situation,
  { key, chain }: Identity,
  path: readonly Certificate[],
  bundle: readonly Certificate[],
  foreign: UpstreamTrustDecision | undefined,
): Revocation | undefined {
  if (!named) return undefined;
  if (foreign) {
    const message = `the mesh sends CRLs of its own trust domain, not of ${foreign.trustDomain}: they are not published; remove trust.crl`;
    return { problem: { code: 'ERR_CRL_MISSING', message } };
  }
  // An upstream's chain has the authorities of ours, or those of a root that is being replaced.
  const above = path.slice(1).filter(({ fingerprint }) => !bundle.some((root) => root.fingerprint === fingerprint));
  const choice = chooseCrls(named, [...above, ...bundle], now);
  if (!choice.ok) return { problem: choice.problem, nextLook: choice.again };
  const proof = { pair: { key, chain }, bundle, crls: choice.crls };
  const verdict = preflight(proof);
  if (!verdict) return { unproven: proof };
  if (verdict.ok) return { crls: choice.crls, problem: choice.problem, nextLook: choice.until };
  const message = `CRLs are not published, because the gateway's own certificate fails with them: ${verdict.message}`;
  return { problem: { code: 'ERR_CRL_REFUSED', message }, nextLook: choice.until };
}

/** The trust while the candidate is not used: what it shows to be withdrawn is withdrawn nevertheless. */
function trustWithout(
  situation: Situation,
  judged: Judgement | undefined,
  current: Identity | undefined,
): TrustDecision {
  const { bundle, since } = situation.published;
  const trust = trustFor(situation, namedRoots(bundle, since), undefined, current);
  return judged ? { ...trust, withdrawn: judged.trust.withdrawn } : trust;
}

const PROVEN: Proven = { ok: true };

/**
 * Whether the published leaf ends at a root that is withdrawn. It stays, so that the gateway has a certificate until the
 * mesh issues another one; the root leaves at once.
 */
const isStranded = ({ chain: [leaf, ...links] }: Identity, { bundle, withdrawn }: TrustDecision): boolean =>
  leaf !== undefined &&
  withdrawn.length > 0 &&
  !reachesRoot(findPath(leaf, links, bundle, leaf.notBefore)) &&
  reachesRoot(findPath(leaf, links, withdrawn, leaf.notBefore));

const isIn = (roots: readonly Certificate[], { fingerprint }: Certificate): boolean =>
  roots.some((one) => one.fingerprint === fingerprint);

type Proven = { readonly ok: true } | { readonly ok: false; readonly refused?: Problem; readonly unproven?: Proof };

/** The published pair needs no second handshake; any other pair needs an accepted one. */
function proofOf(situation: Situation, identity: Identity, bundle: readonly Certificate[]): Proven {
  if (isPublished(situation, identity, bundle)) return { ok: true };
  const { key, chain } = identity;
  const proof = { pair: { key, chain }, bundle };
  const verdict = situation.preflight(proof);
  if (!verdict) return { ok: false, unproven: proof };
  return verdict.ok ? { ok: true } : { ok: false, refused: { code: verdict.code, message: verdict.message } };
}

function isPublished({ published }: Situation, { key, chain }: Identity, bundle: readonly Certificate[]): boolean {
  const before = published.identity;
  return (
    before?.key.publicKeyFingerprint === key.publicKeyFingerprint &&
    sameCertificates(before.chain, chain) &&
    sameCertificates(published.bundle, bundle)
  );
}

const sameCertificates = (a: readonly Certificate[], b: readonly Certificate[]): boolean =>
  a.length === b.length && a.every(({ fingerprint }, at) => fingerprint === b[at]?.fingerprint);

interface VerifiedPublication {
  readonly identity: Identity;
  readonly path: readonly Certificate[];
}

/** The published pair, if it still verifies under the published bundle. */
function verifiedPublication({ published, expectation, now }: Situation): VerifiedPublication | undefined {
  const pair = published.identity;
  const leaf = pair?.chain[0];
  if (!pair || !leaf) return undefined;
  const id = leaf.names.uris[0] ?? leaf.names.dns[0] ?? '';
  const verdict = verify(pair, published.bundle, { ...expectation, id: expectation.id ?? id }, now);
  if (!verdict.ok) return undefined;
  return { identity: { id, key: pair.key, chain: pair.chain, roots: published.bundle }, path: verdict.path };
}

interface Judgement {
  /** Why the candidate may not be published; undefined: it may. */
  readonly refused: Problem | undefined;
  /** The handshake that the verdict waits for. */
  readonly unproven: Proof | undefined;
  /** From the leaf to a root; undefined if our checks refuse the candidate. */
  readonly path: readonly Certificate[] | undefined;
  /** The trust that would be written with the candidate, and that it was judged against. */
  readonly trust: TrustDecision;
  /** The candidate is valid from then on, epoch ms: the issuer's clock is slightly ahead of ours. */
  readonly validFrom?: number;
}

function judge(situation: Situation, candidate: Identity, current: VerifiedPublication | undefined): Judgement {
  const trust = trustFor(situation, candidate.roots, candidate, current?.identity);
  // The published pair under the published bundle is verified already.
  if (current && isPublished(situation, candidate, trust.bundle)) {
    return { refused: undefined, unproven: undefined, path: current.path, trust };
  }
  // When the configuration names no ID, the published ID is expected: a mesh that suddenly issues another identity is
  // refused.
  const id = situation.expectation.id ?? current?.identity.id ?? candidate.id;
  const expected = { ...situation.expectation, id };
  const verdict = verify(candidate, trust.bundle, expected, situation.now);
  if (!verdict.ok) {
    const refused = endsAtWithdrawn(candidate, trust) ?? { code: verdict.code, message: verdict.message };
    return { refused, unproven: undefined, path: undefined, trust };
  }
  const { path } = verdict;
  const validFrom = Math.max(...path.map(({ notBefore }) => notBefore));
  // OpenSSL tolerates no clock skew.
  if (situation.now < validFrom) {
    return { refused: waitsUntil(validFrom), unproven: undefined, path, trust, validFrom };
  }
  const proven = proofOf(situation, candidate, trust.bundle);
  return proven.ok
    ? { refused: undefined, unproven: undefined, path, trust }
    : { refused: proven.refused, unproven: proven.unproven, path, trust };
}

function waitsUntil(validFrom: number): Problem {
  const at = new Date(validFrom).toISOString();
  const message = `the certificate is valid from ${at} on, and is published then; the issuer's clock is ahead of this one`;
  return { code: 'ERR_VERIFY_NOT_YET_VALID', message };
}

function trustFor(
  { published, spec, now }: Situation,
  named: readonly Certificate[],
  candidate: Identity | undefined,
  current: Identity | undefined,
): TrustDecision {
  return decideTrust({
    named,
    published: published.bundle,
    since: published.since,
    now,
    retainMs: spec.trust.retainMs,
    withdrawn: spec.trust.withdrawn,
    leafLifetimeMs: longestLife([candidate, current, published.identity]),
    chains: [current?.chain ?? [], candidate?.chain ?? []],
  });
}

function upstreamTrustFor(
  { published, spec, now }: Situation,
  candidate: Identity | undefined,
  current: Identity | undefined,
): UpstreamTrustDecision | undefined {
  const leafLifetimeMs = longestLife([candidate, current, published.identity]);
  const { retainMs, withdrawn } = spec.trust;
  return decideUpstreamTrust(candidate, published.upstream, { now, retainMs, withdrawn, leafLifetimeMs });
}

/** The longest lifetime of the known leaves; infinite if none is known, so that no root is dropped without evidence. */
function longestLife(pairs: readonly (Pick<Identity, 'chain'> | undefined)[]): number {
  const leaves = pairs.map((pair) => pair?.chain[0]).filter((leaf) => leaf !== undefined);
  if (leaves.length === 0) return Number.POSITIVE_INFINITY;
  return Math.max(...leaves.map(({ notBefore, notAfter }) => notAfter - notBefore));
}

const problemOf = ({ refused, trust }: Judgement): Problem | undefined => refused && (trust.problem ?? refused);

/** A leaf that only a withdrawn root vouches for. */
function endsAtWithdrawn(candidate: Identity, trust: TrustDecision): Problem | undefined {
  if (!isStranded(candidate, trust)) return undefined;
  const names = trust.withdrawn.map(({ subject, fingerprint }) => `"${subject}" (${fingerprint.slice(0, 16)})`);
  const message = `the certificate from the mesh ends at a root in spec.trust.withdrawn, ${names.join(', ')}, and is not published. Rotate the CA of the mesh, so that it issues under another root`;
  return { code: 'ERR_TRUST_WITHDRAWN', message };
}

/**
 * The certificate of the same trust anchor in the next bundle: leaves that upstreams accept do not depend on its dates.
 */
const successorIn = (bundle: readonly Certificate[], root: Certificate): Certificate =>
  bundle.find((one) => anchorOf(one) === anchorOf(root)) ?? root;

function earliest(now: number, times: readonly (number | undefined)[]): number | undefined {
  const later = times.filter((time): time is number => time !== undefined && time > now);
  return later.length === 0 ? undefined : Math.min(...later);
}

type Said = Omit<Condition, 'lastTransitionTime'>;

interface Progress {
  readonly before: PublicationStatus | undefined;
  /** The generation that the conditions are about; a file has none. */
  readonly observedGeneration?: number;
  readonly isRefused: boolean;
  /** The desired objects are published, or nothing is to be done. */
  readonly isDone: boolean;
  /** A valid pair is published, whether or not it is the desired one. */
  readonly hasPublished: boolean;
}

/**
 * Stalled while a spec is refused, Reconciling while a spec is not published yet. A rotation is no progress that anybody
 * waits for: once a spec was published, Reconciling comes back only with another spec, or when nothing is published.
 */
export function progressOf(
  conditions: readonly Said[],
  { before, observedGeneration, isRefused, isDone, hasPublished }: Progress,
): Said[] {
  const as = (source: Condition['type'], type: Condition['type']): Said[] =>
    conditions.filter((one) => one.type === source).map((one) => ({ ...one, type, status: 'True' }));
  if (isRefused) return as('Degraded', 'Stalled');
  if (isDone) return [];
  const wasDone = before?.observedGeneration === observedGeneration && !before?.conditions.some(isProgress);
  return wasDone && hasPublished ? [] : as('Published', 'Reconciling');
}

/** Conditions of progress are in a status only while they are True. */
export const withoutEnded = (conditions: readonly Condition[], progress: readonly Said[]): Condition[] =>
  conditions.filter((one) => !isProgress(one) || progress.some(({ type }) => type === one.type));

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
