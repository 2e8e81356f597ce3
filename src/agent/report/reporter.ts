import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { statusOf } from '../../core/decision/status-of.ts';
import { keyOf, refOf } from '../../core/object.ts';
import { type Condition, type PublicationStatus, setConditions } from '../../core/status.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import type { Passed, Report } from './report.ts';
import { type StatusRecord, statusRecordOf } from './status-record.ts';

/** A consumer of reports: the log, metrics, Events, the status subresource, the status page. */
export interface Sink {
  /**
   * Called after each reconcile; `before` is the status of the previous one, `told` the same object at every reconcile.
   */
  status?(status: PublicationStatus, before: PublicationStatus | undefined, passed: Passed, told: StatusRecord): void;
  /** The watch shows that the resource carries the reported status. */
  seen?(certificate: MeshCertificate, told: StatusRecord): void;
  /** A failure that is retried automatically. */
  trouble?(certificate: MeshCertificate, error: Error): void;
  /** The MeshCertificate is no longer desired; without `told`, nothing but trouble was reported about it. */
  forget?(certificate: MeshCertificate, told: StatusRecord | undefined): void;
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
  readonly #told = new Map<string, StatusRecord & { status: PublicationStatus }>();

  /** The last of each, if a sink may amend it. */
  readonly #passed: Map<StatusRecord, Passed> | undefined;

  constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
    this.#passed = sinks.some((sink) => sink.attach) ? new Map() : undefined;
    for (const sink of sinks) sink.attach?.((...amended) => this.#amend(...amended));
  }

  report(report: Report): void {
    const { certificate } = report;
    const stands = certificate.status as PublicationStatus | undefined;
    const known = this.#told.get(keyOf(refOf(certificate)));
    const before = known?.status ?? stands;
    const said = statusOf(report, before);
    // When the status is unchanged, the resource, the board and this share one object.
    const status = [...new Set([stands, before])].find((one) => isDeepStrictEqual(one, said)) ?? said;
    const told = known ?? statusRecordOf(certificate, status);
    told.status = status;
    if (!known) this.#told.set(told.key, told);
    this.#passed?.set(told, withoutDeeds(report));
    for (const sink of this.#sinks) sink.status?.(status, before, report, told);
  }

  /**
   * Whether the status of the resource is the last one that was reported, in the fields that another replica may have
   * changed.
   */
  agrees(certificate: MeshCertificate): boolean {
    const told = this.#told.get(keyOf(refOf(certificate)));
    const stands = certificate.status as PublicationStatus | undefined;
    if (!told || told.status === stands) return true;
    if (!isDeepStrictEqual(told.status, stands)) return gistOf(told.status) === gistOf(stands);
    told.status = stands as PublicationStatus;
    for (const sink of this.#sinks) sink.seen?.(certificate, told);
    return true;
  }

  #amend(...[certificate, condition, now]: Parameters<Amend>): void {
    const told = this.#told.get(keyOf(refOf(certificate)));
    const passed = told && this.#passed?.get(told);
    if (!passed) return;
    const before = told.status;
    const shown = { ...condition, message: safeMessage(condition.message) };
    const status = { ...before, conditions: setConditions(before.conditions, [shown], now) };
    if (JSON.stringify(status) === JSON.stringify(before)) return;
    told.status = status;
    for (const sink of this.#sinks) sink.status?.(status, before, passed, told);
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    for (const sink of this.#sinks) sink.trouble?.(certificate, error);
  }

  forget(certificate: MeshCertificate): void {
    const key = keyOf(refOf(certificate));
    const told = this.#told.get(key);
    this.#told.delete(key);
    if (told) this.#passed?.delete(told);
    for (const sink of this.#sinks) sink.forget?.(certificate, told);
  }
}

/** What still holds after a reconcile: an amendment writes and rotates nothing, and a decision takes much memory. */
function withoutDeeds({ certificate, failure, inForce, leading, breakerOpenMs, dryRun }: Report): Passed {
  const none = { outcome: undefined, rotation: undefined, repair: false };
  return { certificate, failure, inForce, leading, breakerOpenMs, dryRun, ...none };
}

function gistOf(status: PublicationStatus | undefined): string {
  const conditions = status?.conditions?.map(({ type, status, reason }) => `${type} ${status} ${reason}`) ?? [];
  const { fingerprint, renewalTime, lastError } = status ?? {};
  return [fingerprint, renewalTime, lastError?.code, lastError?.time, ...conditions.sort()].join();
}
