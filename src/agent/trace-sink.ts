import { ROOT_CONTEXT, type Tracer, trace } from '@opentelemetry/api';
import type { Clock } from '../async/clock.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { WrittenObject } from './publisher.ts';
import type { ReconcileResult, ReportedStatus, Sink } from './reporter.ts';

/** Writes that are remembered for the span of a publication that does not complete. */
const MOST_WRITES = 100;

/**
 * Traces publications: one span from the mesh issuing an identity to the publication being read back, with a child span
 * for each write. Spans carry names and fingerprints, no certificates.
 */
export class TraceSink implements Sink {
  readonly #tracer: Tracer;
  readonly #clock: Clock;
  readonly #writes = new Map<ReportedStatus, WrittenObject[]>();

  constructor(tracer: Tracer, clock: Clock) {
    this.#tracer = tracer;
    this.#clock = clock;
  }

  status(
    status: PublicationStatus,
    _before: PublicationStatus | undefined,
    report: ReconcileResult,
    reported: ReportedStatus,
  ): void {
    const writes = [...(this.#writes.get(reported) ?? []), ...(report.outcome?.written ?? [])].slice(-MOST_WRITES);
    const [first] = writes;
    if (!first) return;
    this.#writes.set(reported, writes);
    if (!report.inForce) return;
    this.#writes.delete(reported);
    const now = this.#clock.now();
    const { kind = report.repair ? 'repair' : 'publication', lagMs } = report.rotation ?? {};
    const startTime = Math.min(first.startedAt, now - (lagMs ?? 0));
    const span = this.#tracer.startSpan('publish', {
      startTime,
      root: true,
      attributes: {
        'meshcert.namespace': reported.namespace,
        'meshcert.name': reported.name,
        'meshcert.mesh': status.mesh,
        'meshcert.kind': kind,
        'meshcert.fingerprint': status.fingerprint ?? '',
        'meshcert.roots': status.roots.length,
      },
    });
    const context = trace.setSpanContext(ROOT_CONTEXT, span.spanContext());
    for (const { ref, action, startedAt, endedAt, changed } of writes) {
      const attributes = {
        'k8s.namespace.name': ref.namespace ?? '',
        'meshcert.object.kind': ref.kind,
        'meshcert.object.name': ref.name,
        'meshcert.changed': changed.join(' '),
      };
      this.#tracer.startSpan(`${action} ${ref.kind}`, { startTime: startedAt, attributes }, context).end(endedAt);
    }
    span.addEvent('read back', now);
    span.end(now);
  }

  forget(_certificate: MeshCertificate, reported: ReportedStatus | undefined): void {
    if (reported) this.#writes.delete(reported);
  }
}
