import { leafOf } from '../mesh/identity.ts';
import { safeMessage } from '../mesh/secrets.ts';
import { describe, type ObjectRef } from '../objects/objects.ts';
import type { Certificate } from '../pki/certificate.ts';
import {
  type CheckedUpstreams,
  type Decision,
  progressOf,
  type Situation,
  upstreamsOf,
  verifiedUpstreams,
  withoutEnded,
} from './decide.ts';

import { type Problem, reasonOf } from './problem.ts';
import { emergencyAt, renewAt } from './schedule.ts';
import {
  type Condition,
  type ConditionStatus,
  type ConditionType,
  type LastError,
  type PublicationStatus,
  type RouteStatus,
  setConditions,
  type TargetStatus,
  toRfc3339,
  type UpstreamStatus,
} from './status.ts';

/** The reasons of conditions, in addition to those made from an error code; docs/runbook.md has an entry for each. */
export const REASONS = [
  'Serving',
  'NotPublished',
  'Expired',
  'Paused',
  'InForce',
  'NotIssued',
  'Writing',
  'RootsCurrent',
  'LeafHeld',
  'NoRoots',
  'IssuerCurrent',
  'IssuerEnds',
  'AsExpected',
  'BudgetExhausted',
  'EmergencyBand',
  'NotSeen',
  'IdentitiesExpected',
  'Retiring',
] as const;

/** What one reconcile found, as far as it goes into the status. Times in epoch milliseconds. */
export interface StatusInput {
  readonly certificate: {
    readonly metadata: { readonly generation?: number | undefined };
    readonly spec: {
      readonly mesh: { readonly name: string };
      readonly renewal: { readonly at: number; readonly jitter: number };
      readonly paused: boolean;
    };
    /** The current status of the resource. */
    readonly status?: unknown;
    /** Why the newest version of the resource is refused; this is the last valid one. */
    readonly refused?: Problem & { readonly generation: number | undefined };
  };
  readonly situation: Pick<Situation, 'candidate' | 'published' | 'now'>;
  readonly decision: Decision;
  /** False while the publication cannot be read; then `decision` is based on nothing, and `failure` says why. */
  readonly seen: boolean;
  /**
   * The publication was read back from the watch and verified: the observed objects are the desired ones, except those
   * of `refusedElsewhere`.
   */
  readonly inForce: boolean;
  /** Objects of gateways in other namespaces that cannot be written now. */
  readonly refusedElsewhere: readonly ObjectRef[];
  readonly leading: boolean;
  /** The newest failure of mesh, cluster or plan since the last success. */
  readonly failure: Problem | undefined;
  /** Why the probe of the held leaf has no answer. */
  readonly probeProblem: Problem | undefined;
  /** The last value of the renew annotation that was handled. */
  readonly renewRequest: string | undefined;
  /** When the mesh is asked again, after a failure. */
  readonly nextAttemptAt: number | undefined;
  /** When the leaf of this fingerprint is renewed; undefined on a follower. */
  readonly planned: { readonly fingerprint: string; readonly due: number } | undefined;
  /** Milliseconds until the budget on attempts allows the next one; 0 when it does now. */
  readonly breakerOpenMs: number;
  readonly gateways: Readonly<Record<string, object>>;
  readonly routes: readonly RouteStatus[];
  readonly targets: readonly TargetStatus[];
  /** Addresses of the upstreams, and who answered there; undefined if they are not checked. */
  readonly upstreams: CheckedUpstreams | undefined;
  /** The gateways' verdicts on their routes, one for each gateway. */
  readonly referenced: readonly Pick<Condition, 'status' | 'reason' | 'message'>[];
}

/** The status for this report, given the previous status; transition times and counts are carried over. */
export function statusOf(report: StatusInput, before: PublicationStatus | undefined): PublicationStatus {
  if (!report.seen) return unseen(report, before);
  const { certificate, decision, situation, failure } = report;
  const { now } = situation;
  const leaf = decision.identity && leafOf(decision.identity);
  const rotated = leaf !== undefined && report.inForce && before?.fingerprint !== leaf.fingerprint;
  const current = report.inForce || before === undefined;
  const lastError = failure && errorOf(failure, before, now);
  const upstreams = upstreamsOf(report, before);
  const earlier = (before?.conditions ?? []).filter(({ type }) => type !== 'UpstreamVerified' || upstreams.length > 0);
  const said = conditionsOf(report, upstreams, lastError);
  const progress = progressOf(said, {
    before,
    ...observed(report),
    isRefused: certificate.refused !== undefined,
    isDone: report.inForce || certificate.spec.paused,
    hasPublished: decision.publishedIdentity !== undefined,
  });
  const conditions = withoutEnded(setConditions(earlier, [...said, ...progress], now), progress);
  const lastRotationTime = rotated ? toRfc3339(now) : before?.lastRotationTime;
  const held = report.decision.hold?.hold ? heldOf(report) : undefined;
  return {
    ...observed(report),
    mesh: certificate.spec.mesh.name,
    ...(leaf && decision.identity && current
      ? {
          id: decision.identity.id,
          fingerprint: leaf.fingerprint,
          notBefore: toRfc3339(leaf.notBefore),
          notAfter: toRfc3339(leaf.notAfter),
          renewalTime: renewalTimeOf(report, leaf, before),
          emergencyTime: toRfc3339(emergencyAt(leaf)),
        }
      : leafFields(before)),
    ...issuerOf(report),
    ...(situation.published.secrets.length > 0 ? { secrets: situation.published.secrets } : {}),
    roots: decision.upstreamTrust.bundle.map((root) => {
      const mark = decision.upstreamTrust.since.get(root.fingerprint);
      return {
        fingerprint: root.fingerprint,
        subject: safeMessage(root.subject),
        notAfter: toRfc3339(root.notAfter),
        state: mark?.state === 'retained' ? ('retained' as const) : ('named' as const),
        ...(mark ? { since: toRfc3339(mark.at) } : {}),
      };
    }),
    ...(held ? { held } : {}),
    gateways: report.gateways,
    mappings: report.routes,
    targets: report.targets,
    ...(upstreams.length > 0 ? { upstreams } : {}),
    rotations: (before?.rotations ?? 0) + (rotated && before?.fingerprint !== undefined ? 1 : 0),
    ...(lastRotationTime === undefined ? {} : { lastRotationTime }),
    ...(report.renewRequest === undefined ? {} : { renewRequest: report.renewRequest }),
    ...(lastError ? { lastError, ...nextAttemptOf(report) } : {}),
    conditions,
  };
}

function issuerOf({ decision: { issuerEnd } }: StatusInput): Pick<PublicationStatus, 'issuer'> {
  if (!issuerEnd) return {};
  const { subject, fingerprint, notAfter } = issuerEnd.certificate;
  return { issuer: { subject: safeMessage(subject), fingerprint, notAfter: toRfc3339(notAfter) } };
}

/** The published objects are unknown: the previous status remains, and the reason is added. */
function unseen(report: StatusInput, before: PublicationStatus | undefined): PublicationStatus {
  const { certificate, failure, situation } = report;
  const { now } = situation;
  const say = conditionBuilder(report);
  let conditions: readonly Condition[] = before?.conditions ?? [];
  if (!conditions.some(({ type }) => type === 'Ready')) {
    const message = 'The published objects cannot be read; see Degraded.';
    conditions = setConditions(conditions, [say('Ready', 'Unknown', 'NotSeen', message)], now);
  }
  if (failure) {
    const degraded = say('Degraded', 'True', reasonOf(failure.code), `${failure.code}: ${failure.message}`);
    conditions = setConditions(conditions, [degraded], now);
  }
  const { name } = certificate.spec.mesh;
  return {
    mesh: name,
    roots: [],
    mappings: [],
    targets: [],
    rotations: 0,
    ...before,
    ...(failure ? { lastError: errorOf(failure, before, now) } : {}),
    conditions,
  };
}

/**
 * Keeps the first value for as long as the leaf is published: after a restart the time of issue is less exact, and the
 * renewal time has not changed.
 */
function renewalTimeOf(
  { certificate, decision, leading, planned }: StatusInput,
  leaf: Certificate,
  before: PublicationStatus | undefined,
): string {
  // The leaf was due, and the new certificate gained nothing: the next request has another time.
  if (decision.isIdle && planned) return toRfc3339(planned.due);
  const said = leading ? before : (certificate.status as PublicationStatus | undefined);
  for (const one of [said, before]) {
    if (one?.fingerprint === leaf.fingerprint && one.renewalTime !== undefined) return one.renewalTime;
  }
  const { at, jitter } = certificate.spec.renewal;
  return toRfc3339(planned?.fingerprint === leaf.fingerprint ? planned.due : renewAt(leaf, at, jitter));
}

function leafFields(before: PublicationStatus | undefined): Partial<PublicationStatus> {
  if (before?.fingerprint === undefined) return {};
  const { id, fingerprint, notBefore, notAfter, renewalTime, emergencyTime } = before;
  return Object.fromEntries(
    Object.entries({ id, fingerprint, notBefore, notAfter, renewalTime, emergencyTime }).filter(
      ([, v]) => v !== undefined,
    ),
  );
}

function heldOf({ situation, decision }: StatusInput): NonNullable<PublicationStatus['held']> | undefined {
  const { candidate } = situation;
  const { hold } = decision;
  if (!candidate || !hold?.hold) return undefined;
  return { fingerprint: leafOf(candidate).fingerprint, reason: hold.reason, until: toRfc3339(hold.until) };
}

function errorOf({ code, message, at }: Problem, before: PublicationStatus | undefined, now: number): LastError {
  const last = before?.lastError;
  const time = toRfc3339(at ?? now);
  const firstTime = last && isAlike(last.code, code) ? (last.firstTime ?? last.time) : time;
  return { code, message: safeMessage(message), firstTime, time };
}

/** A mesh that is down fails sometimes in one way and sometimes in another. */
const isAlike = (a: string, b: string): boolean => a === b || [a, b].every((code) => /^ERR_MESH_/.test(code));

/** A follower does not ask the mesh: it repeats what the leader reported. */
function nextAttemptOf({
  certificate,
  leading,
  nextAttemptAt,
}: StatusInput): Pick<PublicationStatus, 'nextAttemptTime'> {
  const said = leading ? undefined : (certificate.status as PublicationStatus | undefined)?.nextAttemptTime;
  const nextAttemptTime = nextAttemptAt === undefined ? said : toRfc3339(nextAttemptAt);
  return nextAttemptTime === undefined ? {} : { nextAttemptTime };
}

function conditionsOf(
  report: StatusInput,
  upstreams: readonly UpstreamStatus[],
  lastError: LastError | undefined,
): Omit<Condition, 'lastTransitionTime'>[] {
  const { decision, failure, inForce } = report;
  const leaf = decision.identity && leafOf(decision.identity);
  const say = conditionBuilder(report);
  const because = failure ? `${failure.code}: ${failure.message}` : '';
  const published = leaf
    ? inForce
      ? say('Published', 'True', 'InForce', `The published objects were read back and verified${exceptions(report)}.`)
      : say(
          'Published',
          'False',
          failure ? reasonOf(failure.code) : 'Writing',
          because || 'The objects are being written.',
        )
    : say(
        'Published',
        'False',
        failure ? reasonOf(failure.code) : 'NotIssued',
        because || 'The mesh has not issued a certificate yet.',
      );
  return [
    readiness(report, lastError, say),
    published,
    trusted(report, say),
    ...referenced(report, say),
    ...verifiedUpstreams(upstreams).map(({ status, reason, message }) =>
      say('UpstreamVerified', status, reason, message),
    ),
    ...issuerEnding(report, say),
    degraded(report, because, lastError, say),
  ];
}

const EXCEPTIONS_NAMED = 3;

/** What somebody prevents in another namespace leaves the rest in force. */
function exceptions({ refusedElsewhere: refused }: StatusInput): string {
  if (refused.length === 0) return '';
  const named = refused.slice(0, EXCEPTIONS_NAMED).map(describe).join(', ');
  const others = refused.length > EXCEPTIONS_NAMED ? ` and ${refused.length - EXCEPTIONS_NAMED} more` : '';
  return `, except what cannot be written in other namespaces: ${named}${others}; see Degraded`;
}

type ConditionBuilder = (
  type: ConditionType,
  status: ConditionStatus,
  reason: string,
  message: string,
) => Omit<Condition, 'lastTransitionTime'>;

function conditionBuilder(report: StatusInput): ConditionBuilder {
  return (type, status, reason, message) => ({
    type,
    status,
    reason,
    message: safeMessage(message),
    ...observed(report),
  });
}

function observed({ certificate }: StatusInput): { observedGeneration?: number } {
  const { generation } = certificate.refused ?? certificate.metadata;
  return generation === undefined ? {} : { observedGeneration: generation };
}

/** Why nothing newer is published, and since when. */
const causeOf = (error: LastError | undefined): string =>
  error
    ? `Since ${error.firstTime ?? error.time}: ${error.code}: ${error.message}`
    : 'The mesh has neither answered nor failed yet.';

function readiness(
  { certificate, decision, situation }: StatusInput,
  lastError: LastError | undefined,
  say: ConditionBuilder,
) {
  const publishedLeaf = situation.published.identity?.chain[0];
  if (publishedLeaf && publishedLeaf.notAfter <= situation.now) {
    const end = toRfc3339(publishedLeaf.notAfter);
    return say(
      'Ready',
      'False',
      'Expired',
      `The certificate expired at ${end}, and no newer one came. ${causeOf(lastError)}`,
    );
  }
  const { publishedIdentity: current } = decision;
  if (!current) {
    return say('Ready', 'False', 'NotPublished', 'No verified certificate is published; see Published for the cause.');
  }
  if (certificate.spec.paused) {
    return say(
      'Ready',
      'True',
      'Paused',
      'The certificate is valid, but spec.paused is set: nothing is renewed. Set it to false.',
    );
  }
  const until = toRfc3339(leafOf(current).notAfter);
  return say('Ready', 'True', 'Serving', `Certificate of ${current.id} until ${until}.`);
}

function trusted({ decision, probeProblem }: StatusInput, say: ConditionBuilder) {
  const { bundle, since, withdrawn } = decision.upstreamTrust;
  if (bundle.length === 0) {
    return say(
      'Trusted',
      'Unknown',
      'NoRoots',
      'No trust bundle is published yet. The agent writes it with the first certificate; see Published for what is missing.',
    );
  }
  if (decision.hold?.hold) {
    const why =
      decision.hold.reason === 'probe_refused'
        ? 'the probed upstream refuses it; restart workloads that still trust only the old root'
        : 'its root is new to the upstreams';
    const unasked = probeProblem
      ? `; the probe of spec.probe was inconclusive: ${probeProblem.code}: ${probeProblem.message}`
      : '';
    return say(
      'Trusted',
      'False',
      'LeafHeld',
      `A newer certificate is held back until ${toRfc3339(decision.hold.until)}: ${why}${unasked}.`,
    );
  }
  const retained = [...since.values()].filter(({ state }) => state === 'retained').length;
  const others = retained === 0 ? '' : `, ${retained} of them retained although the mesh no longer names them`;
  const names = withdrawn.map(({ subject, fingerprint }) => `"${subject}" (${fingerprint.slice(0, 16)})`);
  const out = names.length === 0 ? '' : `; not trusted because of spec.trust.withdrawn: ${names.join(', ')}`;
  return say('Trusted', 'True', 'RootsCurrent', `${bundle.length} root(s) trusted${others}${out}.`);
}

function issuerEnding({ decision: { identity, issuerEnd, isIdle }, situation }: StatusInput, say: ConditionBuilder) {
  if (!identity || !issuerEnd) return [];
  const { subject, fingerprint, notAfter } = issuerEnd.certificate;
  if (!isIdle && situation.now < issuerEnd.endingAt) {
    return [say('IssuerEnding', 'False', 'IssuerCurrent', 'No CA certificate above the leaf is near its end.')];
  }
  const name = subject || fingerprint.slice(0, 16);
  const message = `The CA certificate ${name} ends at ${toRfc3339(notAfter)}, and no certificate that it issues is valid for longer. Renew it in the mesh; the agent then publishes the next certificate.`;
  return [say('IssuerEnding', 'True', 'IssuerEnds', message)];
}

/** The first gateway with a problem; otherwise the first gateway. */
function referenced({ referenced: said }: StatusInput, say: ConditionBuilder) {
  const first = said.find(({ status }) => status === 'False') ?? said[0];
  return first ? [say('Referenced', first.status, first.reason, first.message)] : [];
}

function degraded(
  { certificate: { refused }, decision, situation, failure, breakerOpenMs }: StatusInput,
  because: string,
  lastError: LastError | undefined,
  say: ConditionBuilder,
) {
  const leaf = decision.identity && leafOf(decision.identity);
  if (leaf && situation.now >= emergencyAt(leaf)) {
    const end = toRfc3339(leaf.notAfter);
    return say(
      'Degraded',
      'True',
      'EmergencyBand',
      `The certificate ends at ${end}, and no newer one is published. ${causeOf(lastError)}`,
    );
  }
  if (refused) return say('Degraded', 'True', reasonOf(refused.code), `${refused.code}: ${refused.message}`);
  if (failure) return say('Degraded', 'True', reasonOf(failure.code), because);
  if (breakerOpenMs > 0) {
    return say(
      'Degraded',
      'True',
      'BudgetExhausted',
      `Too many certificates were requested within the hour; the next attempt is in ${Math.ceil(breakerOpenMs / 1000)} s. Check the lifetime that the CA grants.`,
    );
  }
  return say('Degraded', 'False', 'AsExpected', 'No problems.');
}
