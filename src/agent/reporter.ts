import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { keyOf, refOf } from '../core/object.ts';
import { type Condition, type PublicationStatus, setCondition } from '../core/status.ts';
import type { Report } from './report.ts';
import { statusOf } from './status.ts';

/** Somebody who wants to know: the log, metrics, Events, the status subresource, the status page. */
export interface Sink {
  /** After each pass of a worker; `before` is the status of the pass before it. */
  status?(status: PublicationStatus, before: PublicationStatus | undefined, report: Report): void;
  /** A failure that is tried again by itself. */
  trouble?(certificate: MeshCertificate, error: Error): void;
  /** The MeshCertificate is no longer wished. */
  forget?(certificate: MeshCertificate): void;
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
  readonly #statuses = new Map<string, PublicationStatus>();

  /** The last of each, where a sink may amend it. */
  readonly #reports: Map<string, Report> | undefined;

  constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
    this.#reports = sinks.some((sink) => sink.attach) ? new Map() : undefined;
    for (const sink of sinks) sink.attach?.((...amended) => this.#amend(...amended));
  }

  report(report: Report): void {
    const key = keyOf(refOf(report.certificate));
    const before = this.#statuses.get(key) ?? (report.certificate.status as PublicationStatus | undefined);
    const said = statusOf(report, before);
    // Where it says nothing new, one object serves the resource, the board and this.
    const same = [report.certificate.status, before].find((one) => isDeepStrictEqual(one, said));
    const status = (same as PublicationStatus | undefined) ?? said;
    this.#statuses.set(key, status);
    this.#reports?.set(key, report);
    for (const sink of this.#sinks) sink.status?.(status, before, report);
  }

  /** Whether the status that the resource carries says what was told last, as far as another replica may have changed it. */
  agrees(certificate: MeshCertificate): boolean {
    const told = this.#statuses.get(keyOf(refOf(certificate)));
    return told === undefined || gistOf(told) === gistOf(certificate.status as PublicationStatus | undefined);
  }

  #amend(...[certificate, condition, now]: Parameters<Amend>): void {
    const key = keyOf(refOf(certificate));
    const before = this.#statuses.get(key);
    const report = this.#reports?.get(key);
    if (!before || !report) return;
    const status = { ...before, conditions: setCondition(before.conditions, condition, now) };
    if (JSON.stringify(status) === JSON.stringify(before)) return;
    this.#statuses.set(key, status);
    // Nothing was written or rotated by it.
    const told = { ...report, outcome: undefined, rotation: undefined, repair: false };
    for (const sink of this.#sinks) sink.status?.(status, before, told);
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    for (const sink of this.#sinks) sink.trouble?.(certificate, error);
  }

  forget(certificate: MeshCertificate): void {
    this.#statuses.delete(keyOf(refOf(certificate)));
    this.#reports?.delete(keyOf(refOf(certificate)));
    for (const sink of this.#sinks) sink.forget?.(certificate);
  }
}

function gistOf(status: PublicationStatus | undefined): string {
  const conditions = status?.conditions?.map(({ type, status, reason }) => `${type} ${status} ${reason}`) ?? [];
  return [status?.fingerprint, status?.lastError?.code, ...conditions.sort()].join();
}
