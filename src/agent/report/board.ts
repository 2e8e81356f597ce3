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
  readonly #told = new Set<StatusRecord>();
  /** Valid until a MeshCertificate is added or removed. */
  #sorted: readonly StatusRecord[] | undefined;
  readonly #subscribers = new Set<() => void>();

  /** Sorted by namespace and name. */
  all(): readonly BoardEntry[] {
    this.#sorted ??= [...this.#told].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
    return this.#sorted.map(({ namespace, name, status }) => ({ namespace, name, status }));
  }

  /** Called after each change; returns the function that unsubscribes. */
  subscribe(told: () => void): () => void {
    this.#subscribers.add(told);
    return () => this.#subscribers.delete(told);
  }

  status(status: PublicationStatus, before: PublicationStatus | undefined, _report: Passed, told: StatusRecord): void {
    const known = this.#told.has(told);
    if (!known) {
      this.#told.add(told);
      this.#sorted = undefined;
    }
    if (!known || (status !== before && !isDeepStrictEqual(status, before))) this.#tell();
  }

  forget(_certificate: MeshCertificate, told: StatusRecord | undefined): void {
    if (!told || !this.#told.delete(told)) return;
    this.#sorted = undefined;
    this.#tell();
  }

  #tell(): void {
    for (const told of this.#subscribers) told();
  }
}

const placeOf = ({ namespace, name }: StatusRecord): string => `${namespace}/${name}`;
