import type { MeshCertificate } from '../config/mesh-certificate.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Clock } from '../mesh/clock.ts';
import { codeOf } from '../mesh/error.ts';
import { forget, type Metrics, observeStatus } from '../telemetry/metrics.ts';
import type { Report } from './report.ts';
import type { Sink } from './reporter.ts';

/** Counts and times what the workers tell. */
export class MetricsSink implements Sink {
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  /** What the gauges say; after a restart they say nothing, though the status has not changed. */
  readonly #observed = new Map<string, PublicationStatus>();

  constructor(metrics: Metrics, clock: Clock) {
    this.#metrics = metrics;
    this.#clock = clock;
  }

  status(status: PublicationStatus, _before: PublicationStatus | undefined, report: Report): void {
    const metrics = this.#metrics;
    const key = keyOf(report.certificate);
    const id = JSON.stringify(key);
    if (this.#observed.get(id) !== status) observeStatus(metrics, key, status);
    this.#observed.set(id, status);
    metrics.breakerOpen.set(key, report.breakerOpenMs > 0 ? 1 : 0);
    if (report.inForce && !report.failure) metrics.lastSuccess.set(key, this.#clock.now() / 1000);
    for (const { ref, action } of report.outcome?.written ?? []) {
      metrics.writes.inc({ kind: ref.kind, action });
      if (report.repair) metrics.driftRepairs.inc({ kind: ref.kind });
    }
    if (report.rotation) {
      metrics.rotations.inc({ ...key, kind: report.rotation.kind });
      if (report.rotation.lagMs !== undefined) {
        metrics.rotationLag.observe({ mesh: status.mesh }, report.rotation.lagMs / 1000);
      }
    }
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    this.#metrics.failures.inc({ ...keyOf(certificate), code: codeOf(error, 'ERR_UNKNOWN') });
  }

  forget(certificate: MeshCertificate): void {
    const key = keyOf(certificate);
    this.#observed.delete(JSON.stringify(key));
    forget(this.#metrics, key);
  }
}

const keyOf = ({ metadata }: MeshCertificate) => ({ namespace: metadata.namespace ?? '', name: metadata.name });
