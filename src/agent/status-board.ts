import { isDeepStrictEqual } from 'node:util';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { keyOf, refOf } from '../core/object.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Report } from './report.ts';
import type { Sink } from './reporter.ts';

export interface BoardEntry {
  readonly namespace: string;
  readonly name: string;
  readonly status: PublicationStatus;
}

/** The newest status of each MeshCertificate, for /readyz, /api/status, the page and `meshcert status`. */
export class StatusBoard implements Sink {
  readonly #entries = new Map<string, BoardEntry>();
  readonly #subscribers = new Set<() => void>();

  /** Sorted by namespace and name. */
  all(): readonly BoardEntry[] {
    const place = ({ namespace, name }: BoardEntry) => `${namespace}/${name}`;
    return [...this.#entries.values()].sort((a, b) => (place(a) < place(b) ? -1 : 1));
  }

  /** Called after each change; returns what ends it. */
  subscribe(told: () => void): () => void {
    this.#subscribers.add(told);
    return () => this.#subscribers.delete(told);
  }

  status(status: PublicationStatus, _before: PublicationStatus | undefined, { certificate }: Report): void {
    const key = keyOf(refOf(certificate));
    const known = this.#entries.get(key);
    if (known?.status === status) return;
    const { name, namespace = '' } = certificate.metadata;
    this.#entries.set(key, { namespace, name, status });
    if (!isDeepStrictEqual(known?.status, status)) this.#tell();
  }

  forget(certificate: MeshCertificate): void {
    if (this.#entries.delete(keyOf(refOf(certificate)))) this.#tell();
  }

  #tell(): void {
    for (const told of this.#subscribers) told();
  }
}
