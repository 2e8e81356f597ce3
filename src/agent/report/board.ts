import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { PublicationStatus } from '../../core/status.ts';
import type { Passed } from './report.ts';
import type { Sink } from './reporter.ts';
import type { StatusRecord } from './status-record.ts';

export interface BoardEntry {
  readonly namespace: string;
  readonly name: string;
  readonly status: PublicationStatus;
}

/** The newest status of each MeshCertificate, for /readyz, /api/status, the page and `meshcert status`. */
export class StatusBoard implements Sink {
  readonly #records = new Set<StatusRecord>();
  /** Valid until a MeshCertificate is added or removed. */
  #sorted: readonly StatusRecord[] | undefined;
  readonly #subscribers = new Set<() => void>();

  /** Sorted by namespace and name. */
  all(): readonly BoardEntry[] {
    this.#sorted ??= [...this.#records].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
    return this.#sorted.map(({ namespace, name, status }) => ({ namespace, name, status }));
  }

  /** Called after each change; returns the function that unsubscribes. */
  subscribe(record: () => void): () => void {
    this.#subscribers.add(record);
    return () => this.#subscribers.delete(record);
  }

  status(
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    _report: Passed,
    record: StatusRecord,
  ): void {
    const known = this.#records.has(record);
    if (!known) {
      this.#records.add(record);
      this.#sorted = undefined;
    }
    if (!known || (status !== before && !isDeepStrictEqual(status, before))) this.#tell();
  }

  forget(_certificate: MeshCertificate, record: StatusRecord | undefined): void {
    if (!record || !this.#records.delete(record)) return;
    this.#sorted = undefined;
    this.#tell();
  }

  #tell(): void {
    for (const record of this.#subscribers) record();
  }
}

const placeOf = ({ namespace, name }: StatusRecord): string => `${namespace}/${name}`;
