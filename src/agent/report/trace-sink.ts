import { ROOT_CONTEXT, type Tracer, trace } from '@opentelemetry/api';
import type { Clock } from '../../async/clock.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { PublicationStatus } from '../../core/status.ts';
import type { WrittenObject } from '../publish/publisher.ts';
import type { Passed } from './report.ts';
import type { Sink } from './reporter.ts';
import type { StatusRecord } from './status-record.ts';

/** Writes that are remembered for the span of a publication that does not complete. */
const MOST_WRITES = 100;

/**
 * Traces publications: one span from the mesh issuing an identity to the publication being read back, with a child span
 * for each write. Spans carry names and fingerprints, no certificates.
 */
export class TraceSink implements Sink {
  readonly #tracer: Tracer;
  readonly #clock: Clock;
  readonly #writes = new Map<StatusRecord, WrittenObject[]>();

  constructor(tracer: Tracer, clock: Clock) {
    this.#tracer = tracer;
    this.#clock = clock;
  }

  status(
    status: PublicationStatus,
    _before: PublicationStatus | undefined,
    report: Passed,
    record: StatusRecord,
  ): void {
    const writes = [...(this.#writes.get(record) ?? []), ...(report.outcome?.written ?? [])].slice(-MOST_WRITES);
    const [first] = writes;
    if (!first) return;
    this.#writes.set(record, writes);
    if (!report.inForce) return;
    this.#writes.delete(record);
    const now = this.#clock.now();
    const { kind = report.repair ? 'repair' : 'publication', lagMs } = report.rotation ?? {};
    const startTime = Math.min(first.startedAt, now - (lagMs ?? 0));
    const span = this.#tracer.startSpan('publish', {
      startTime,
      root: true,
      attributes: {
        'meshcert.namespace': record.namespace,
        'meshcert.name': record.name,
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

  forget(_certificate: MeshCertificate, record: StatusRecord | undefined): void {
    if (record) this.#writes.delete(record);
  }
}
