import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { statusOf } from '../../core/decision/status-of.ts';
import { keyOf, refOf } from '../../core/object.ts';
import { type Condition, type PublicationStatus, reportedStatus, setConditions } from '../../core/status.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import type { Passed, Report } from './report.ts';
import { type StatusRecord, statusRecordOf } from './status-record.ts';

/** A consumer of reports: the log, metrics, Events, the status subresource, the status page. */
export interface Sink {
  /**
   * Called after each reconcile; `before` is the status of the previous one, `record` the same object at every reconcile.
   */
  status?(status: PublicationStatus, before: PublicationStatus | undefined, passed: Passed, record: StatusRecord): void;
  /** The watch shows that the resource carries the reported status. */
  seen?(certificate: MeshCertificate, record: StatusRecord): void;
  /** A failure that is retried automatically. */
  trouble?(certificate: MeshCertificate, error: Error): void;
  /** The MeshCertificate is no longer desired; without `record`, nothing but trouble was reported about it. */
  forget?(certificate: MeshCertificate, record: StatusRecord | undefined): void;
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
  readonly #records = new Map<string, StatusRecord & { status: PublicationStatus }>();

  /** The last of each, if a sink may amend it. */
  readonly #passed: Map<StatusRecord, Passed> | undefined;

  constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
    this.#passed = sinks.some((sink) => sink.attach) ? new Map() : undefined;
    for (const sink of sinks) sink.attach?.((...amended) => this.#amend(...amended));
  }

  report(report: Report): void {
    const { certificate } = report;
    const stored = certificate.status as PublicationStatus | undefined;
    const known = this.#records.get(keyOf(refOf(certificate)));
    const before = known?.status ?? reportedStatus(stored);
    const said = statusOf(report, before);
    // When the status is unchanged, the resource, the board and this share one object.
    const status = [...new Set([stored, before])].find((one) => isDeepStrictEqual(one, said)) ?? said;
    const record = known ?? statusRecordOf(certificate, status);
    record.status = status;
    if (!known) this.#records.set(record.key, record);
    this.#passed?.set(record, withoutDeeds(report));
    for (const sink of this.#sinks) sink.status?.(status, before, report, record);
  }

  /**
   * Whether the status of the resource is the last one that was reported, in the fields that another replica may have
   * changed.
   */
  agrees(certificate: MeshCertificate): boolean {
    const record = this.#records.get(keyOf(refOf(certificate)));
    const stored = certificate.status as PublicationStatus | undefined;
    if (!record || record.status === stored) return true;
    if (!isDeepStrictEqual(record.status, stored)) return gistOf(record.status) === gistOf(stored);
    record.status = stored as PublicationStatus;
    for (const sink of this.#sinks) sink.seen?.(certificate, record);
    return true;
  }

  #amend(...[certificate, condition, now]: Parameters<Amend>): void {
    const record = this.#records.get(keyOf(refOf(certificate)));
    const passed = record && this.#passed?.get(record);
    if (!passed) return;
    const before = record.status;
    const shown = { ...condition, message: safeMessage(condition.message) };
    const status = { ...before, conditions: setConditions(before.conditions, [shown], now) };
    if (JSON.stringify(status) === JSON.stringify(before)) return;
    record.status = status;
    for (const sink of this.#sinks) sink.status?.(status, before, passed, record);
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    for (const sink of this.#sinks) sink.trouble?.(certificate, error);
  }

  forget(certificate: MeshCertificate): void {
    const key = keyOf(refOf(certificate));
    const record = this.#records.get(key);
    this.#records.delete(key);
    if (record) this.#passed?.delete(record);
    for (const sink of this.#sinks) sink.forget?.(certificate, record);
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
