import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { keyOf, refOf } from '../core/object.ts';
import type { PublicationStatus } from '../core/status.ts';
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
}

/** Turns what workers do into one status each and tells every sink. */
export class Reporter {
  readonly #sinks: readonly Sink[];
  readonly #statuses = new Map<string, PublicationStatus>();

  constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
  }

  report(report: Report): void {
    const key = keyOf(refOf(report.certificate));
    const before = this.#statuses.get(key) ?? (report.certificate.status as PublicationStatus | undefined);
    const status = statusOf(report, before);
    this.#statuses.set(key, status);
    for (const sink of this.#sinks) sink.status?.(status, before, report);
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    for (const sink of this.#sinks) sink.trouble?.(certificate, error);
  }

  forget(certificate: MeshCertificate): void {
    this.#statuses.delete(keyOf(refOf(certificate)));
    for (const sink of this.#sinks) sink.forget?.(certificate);
  }
}
