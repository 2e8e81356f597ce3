import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { statusOf } from '../../core/decision/status-of.ts';
import { keyOf, refOf } from '../../core/object.ts';
import { type Condition, type PublicationStatus, setConditions } from '../../core/status.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import type { Passed, Report } from './report.ts';
import { type StatusRecord, statusRecordOf } from './status-record.ts';

/** Somebody who wants to know: the log, metrics, Events, the status subresource, the status page. */
export interface Sink {
  /** After each pass of a worker; `before` is the status of the pass before it, `told` the same object for all passes. */
  status?(status: PublicationStatus, before: PublicationStatus | undefined, passed: Passed, told: StatusRecord): void;
  /** The resource is seen to carry what was told. */
  seen?(certificate: MeshCertificate, told: StatusRecord): void;
  /** A failure that is tried again by itself. */
  trouble?(certificate: MeshCertificate, error: Error): void;
  /** The MeshCertificate is no longer wished; without `told`, nothing but trouble was told of it. */
  forget?(certificate: MeshCertificate, told: StatusRecord | undefined): void;
  /** Given once, at the start, to a sink that finds out more than workers know. */
  attach?(amend: Amend): void;
}

/** Adds a condition to the status of a MeshCertificate and tells every sink; `now` in epoch ms. */
export type Amend = (
  certificate: MeshCertificate,
  condition: Omit<Condition, 'lastTransitionTime'>,
  now: number,
) => void;

/** Turns what workers do into one status each and tells every sink. */
export class Reporter {
  readonly #sinks: readonly Sink[];
  readonly #told = new Map<string, StatusRecord & { status: PublicationStatus }>();

  /** The last of each, where a sink may amend it. */
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
    // Where it says nothing new, one object serves the resource, the board and this.
    const status = [...new Set([stands, before])].find((one) => isDeepStrictEqual(one, said)) ?? said;
    const told = known ?? statusRecordOf(certificate, status);
    told.status = status;
    if (!known) this.#told.set(told.key, told);
    this.#passed?.set(told, withoutDeeds(report));
    for (const sink of this.#sinks) sink.status?.(status, before, report, told);
  }

  /** Whether the status that the resource carries says what was told last, as far as another replica may have changed it. */
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

/** What holds on after a pass; nothing is written or rotated by an amendment, and what was decided is long. */
function withoutDeeds({ certificate, failure, inForce, leading, breakerOpenMs, dryRun }: Report): Passed {
  const none = { outcome: undefined, rotation: undefined, repair: false };
  return { certificate, failure, inForce, leading, breakerOpenMs, dryRun, ...none };
}

function gistOf(status: PublicationStatus | undefined): string {
  const conditions = status?.conditions?.map(({ type, status, reason }) => `${type} ${status} ${reason}`) ?? [];
  const { fingerprint, renewalTime, lastError } = status ?? {};
  return [fingerprint, renewalTime, lastError?.code, lastError?.time, ...conditions.sort()].join();
}
