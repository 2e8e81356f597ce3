import type { Clock } from '../../async/clock.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { PublicationStatus } from '../../core/status.ts';
import { codeOf } from '../../mesh/error.ts';
import { forget, type Metrics } from '../../telemetry/metrics.ts';
import { deriveSeries, type Observed } from '../../telemetry/observed.ts';
import type { Passed } from './report.ts';
import type { Sink } from './reporter.ts';
import type { StatusRecord } from './status-record.ts';

/** What a status does not contain. */
interface Tally {
  breakerOpen: boolean;
  lastSuccess: number | undefined;
  leaves: number;
  bundles: number;
}

/** Counts and times what the reconcilers report. */
export class MetricsSink implements Sink {
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  readonly #tallies = new Map<StatusRecord, Tally>();

  constructor(metrics: Metrics, clock: Clock) {
    this.#metrics = metrics;
    this.#clock = clock;
    deriveSeries(metrics, () => this.#observed());
  }

  status(
    status: PublicationStatus,
    _before: PublicationStatus | undefined,
    report: Passed,
    record: StatusRecord,
  ): void {
    const metrics = this.#metrics;
    const tally = this.#tallies.get(record) ?? { breakerOpen: false, lastSuccess: undefined, leaves: 0, bundles: 0 };
    this.#tallies.set(record, tally);
    tally.breakerOpen = report.breakerOpenMs > 0;
    if (report.inForce && !report.failure) tally.lastSuccess = this.#clock.now();
    for (const { ref, action } of report.outcome?.written ?? []) {
      metrics.writes.inc({ kind: ref.kind, action });
      if (report.repair) metrics.driftRepairs.inc({ kind: ref.kind });
    }
    if (report.rotation) {
      tally[report.rotation.kind === 'leaf' ? 'leaves' : 'bundles'] += 1;
      if (report.rotation.lagMs !== undefined) {
        metrics.rotationLag.observe({ mesh: status.mesh }, report.rotation.lagMs / 1000);
      }
    }
  }

  trouble({ metadata }: MeshCertificate, error: Error): void {
    const { namespace = '', name } = metadata;
    this.#metrics.failures.inc({ namespace, name, code: codeOf(error, 'ERR_UNKNOWN') });
  }

  forget({ metadata }: MeshCertificate, record: StatusRecord | undefined): void {
    if (record) this.#tallies.delete(record);
    forget(this.#metrics, { namespace: metadata.namespace ?? '', name: metadata.name });
  }

  *#observed(): Iterable<Observed> {
    for (const [{ namespace, name, status }, tally] of this.#tallies) yield { namespace, name, status, ...tally };
  }
}
