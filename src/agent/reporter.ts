import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { Decision, Situation } from '../core/decide.ts';
import type { PlanStep } from '../core/plan.ts';
import type { Problem } from '../core/problem.ts';
import { type Condition, type PublicationStatus, reportedStatus, setConditions } from '../core/status.ts';
import { type StatusInput, statusOf } from '../core/status-of.ts';
import { codeOf } from '../mesh/error.ts';
import { leafOf } from '../mesh/identity.ts';
import { safeMessage } from '../mesh/secrets.ts';
import { keyOf, refOf } from '../objects/objects.ts';
import type { PublishResult } from './publisher.ts';

/** A consumer of reports: the log, metrics, Events, the status subresource, the status page. */
export interface Sink {
  /**
   * Called after each reconcile; `before` is the status of the previous one, `reported` the same object every time.
   */
  status?(
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    result: ReconcileResult,
    reported: ReportedStatus,
  ): void;
  /** The watch shows that the resource carries the reported status. */
  seen?(certificate: MeshCertificate, reported: ReportedStatus): void;
  /** A failure occurred, and is retried automatically. As long as it lasts, `lastError` of the status shows it. */
  failure?(certificate: MeshCertificate, problem: Problem): void;
  /** The MeshCertificate is no longer desired; without `reported`, nothing but failures was reported about it. */
  forget?(certificate: MeshCertificate, reported: ReportedStatus | undefined): void;
  /** Called once, at the start, for a sink that knows more than the reconcilers. */
  attach?(amend: Amend): void;
}

/** Adds a condition to the status of a MeshCertificate and notifies every sink; `now` in epoch ms. */
export type Amend = (
  certificate: MeshCertificate,
  condition: Omit<Condition, 'lastTransitionTime'>,
  now: number,
) => void;

/** Computes one status from each reconcile and notifies every sink. */
export class Reporter {
  readonly #sinks: readonly Sink[];
  readonly #reported = new Map<string, ReportedStatus & { status: PublicationStatus }>();

  /** The last of each, if a sink may amend its status. */
  readonly #results: Map<ReportedStatus, ReconcileResult> | undefined;

  constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
    this.#results = sinks.some((sink) => sink.attach) ? new Map() : undefined;
    for (const sink of sinks) sink.attach?.((...amended) => this.#amend(...amended));
  }

  report(report: Report): void {
    const { certificate } = report;
    const stored = certificate.status as PublicationStatus | undefined;
    const known = this.#reported.get(keyOf(refOf(certificate)));
    const before = known?.status ?? reportedStatus(stored);
    const said = statusOf(report, before);
    // When the status is unchanged, the resource, the board and this share one object.
    const status = [...new Set([stored, before])].find((one) => isDeepStrictEqual(one, said)) ?? said;
    const reported = known ?? reportedStatusOf(certificate, status);
    reported.status = status;
    if (!known) this.#reported.set(reported.key, reported);
    this.#results?.set(reported, withoutWrites(report));
    for (const sink of this.#sinks) sink.status?.(status, before, report, reported);
  }

  /**
   * Whether the status of the resource is the last one that was reported, in the fields that another replica may have
   * changed.
   */
  agrees(certificate: MeshCertificate): boolean {
    const reported = this.#reported.get(keyOf(refOf(certificate)));
    const stored = certificate.status as PublicationStatus | undefined;
    if (!reported || reported.status === stored) return true;
    if (!isDeepStrictEqual(reported.status, stored)) return gistOf(reported.status) === gistOf(stored);
    reported.status = stored as PublicationStatus;
    for (const sink of this.#sinks) sink.seen?.(certificate, reported);
    return true;
  }

  #amend(...[certificate, condition, now]: Parameters<Amend>): void {
    const reported = this.#reported.get(keyOf(refOf(certificate)));
    const result = reported && this.#results?.get(reported);
    if (!result) return;
    const before = reported.status;
    const shown = { ...condition, message: safeMessage(condition.message) };
    const status = { ...before, conditions: setConditions(before.conditions, [shown], now) };
    if (JSON.stringify(status) === JSON.stringify(before)) return;
    reported.status = status;
    for (const sink of this.#sinks) sink.status?.(status, before, result, reported);
  }

  failed(certificate: MeshCertificate, error: Error | Problem): void {
    const problem = { code: codeOf(error, 'ERR_UNKNOWN'), message: error.message };
    for (const sink of this.#sinks) sink.failure?.(certificate, problem);
  }

  forget(certificate: MeshCertificate): void {
    const key = keyOf(refOf(certificate));
    const reported = this.#reported.get(key);
    this.#reported.delete(key);
    if (reported) this.#results?.delete(reported);
    for (const sink of this.#sinks) sink.forget?.(certificate, reported);
  }
}

/** What still holds after a reconcile: an amendment writes and rotates nothing, and a decision takes much memory. */
function withoutWrites({ certificate, inForce, leading, breakerOpenMs, dryRun }: Report): ReconcileResult {
  const none = { outcome: undefined, rotation: undefined, repair: false };
  return { certificate, inForce, leading, breakerOpenMs, dryRun, ...none };
}

function gistOf(status: PublicationStatus | undefined): string {
  const conditions = status?.conditions?.map(({ type, status, reason }) => `${type} ${status} ${reason}`) ?? [];
  const { fingerprint, renewalTime, lastError } = status ?? {};
  return [fingerprint, renewalTime, lastError?.code, lastError?.time, ...conditions.sort()].join();
}

/** What every sink receives from a reconcile. */
export interface ReconcileResult {
  readonly certificate: MeshCertificate;
  readonly outcome: PublishResult | undefined;
  /** Read back from the watch and verified: the observed objects are the desired ones. */
  readonly inForce: boolean;
  readonly leading: boolean;
  /** The rotation that this reconcile completed. */
  readonly rotation: Rotation | undefined;
  /** The writes of this reconcile undo somebody else's change. */
  readonly repair: boolean;
  /** Milliseconds until the budget on attempts allows the next one; 0 when it does now. */
  readonly breakerOpenMs: number;
  /** A dry run: nothing is stored. */
  readonly dryRun: boolean;
  /** Absent when a sink amended the status, since nothing was decided. */
  readonly decision?: Decision;
}

/** What the reconciler reports after each reconcile; the sinks turn it into status, metrics, Events and log lines. */
export interface Report extends StatusInput, ReconcileResult {
  readonly certificate: MeshCertificate;
  readonly situation: Situation;
  readonly decision: Decision;
  readonly steps: readonly PlanStep[];
}

/** The last reported status of one MeshCertificate: one object that every sink may keep and none may change. */
export interface ReportedStatus {
  /** Equal to `keyOf`. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly status: PublicationStatus;
}

export function reportedStatusOf(
  certificate: MeshCertificate,
  status: PublicationStatus,
): ReportedStatus & { status: PublicationStatus } {
  const { name, namespace = '' } = certificate.metadata;
  return { key: keyOf(refOf(certificate)), namespace, name, status };
}

interface Rotation {
  readonly kind: 'leaf' | 'bundle';
  /** From the mesh issuing the leaf to its being read back; undefined for a bundle. */
  readonly lagMs: number | undefined;
}

/** Remembers the last desired state that was read back, to distinguish a rotation from a repair. */
export class RotationTracker {
  #leaf: string | undefined;
  #bundle: string | undefined;
  #objects: string | undefined;

  /** Records that this decision is published; returns the rotation that it completes, if any. */
  reached(decision: Decision, lagMs: number | undefined): Rotation | undefined {
    const [leaf, bundle] = [this.#leaf, this.#bundle];
    this.#leaf = leafIn(decision);
    this.#bundle = bundleIn(decision);
    this.#objects = objectsIn(decision);
    if (bundle === undefined) return undefined;
    if (leaf !== this.#leaf) return { kind: 'leaf', lagMs };
    return bundle === this.#bundle ? undefined : { kind: 'bundle', lagMs: undefined };
  }

  /** The same state was read back before: a write that is now needed undoes somebody else's change. */
  wasReached(decision: Decision): boolean {
    return (
      this.#bundle !== undefined &&
      this.#leaf === leafIn(decision) &&
      this.#bundle === bundleIn(decision) &&
      this.#objects === objectsIn(decision)
    );
  }
}

const leafIn = ({ identity }: Decision): string | undefined => identity && leafOf(identity).fingerprint;
/** A single root is its own text; only several are joined. */
const bundleIn = ({ trust, upstreamTrust }: Decision): string => {
  const roots = trust === upstreamTrust ? trust.bundle : [...trust.bundle, ...upstreamTrust.bundle];
  return roots.map((root) => root.fingerprint).join(' ');
};

/** A digest of what is desired, but for the content of Secrets: a further object or another setting is no repair. */
function objectsIn({ desired = [] }: Decision): string {
  const objects = desired.map(({ object }) => (object.kind === 'Secret' ? object.metadata : object));
  return createHash('sha256').update(JSON.stringify(objects)).digest('base64');
}
