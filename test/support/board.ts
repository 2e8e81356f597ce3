import type { PublicationStatus } from '../../src/core/status.ts';
import type { StatusEntry, StatusSource } from '../../src/http/source.ts';

/** A status board that a test writes to. */
export class Board implements StatusSource {
  readonly #entries = new Map<string, StatusEntry>();
  readonly #listeners = new Set<() => void>();

  get subscribers(): number {
    return this.#listeners.size;
  }

  all(): readonly StatusEntry[] {
    return [...this.#entries.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  put(name: string, status: PublicationStatus, namespace = 'emissary'): void {
    this.#entries.set(`${namespace}/${name}`, { namespace, name, status });
    for (const listener of this.#listeners) listener();
  }

  remove(name: string, namespace = 'emissary'): void {
    this.#entries.delete(`${namespace}/${name}`);
    for (const listener of this.#listeners) listener();
  }
}

const HOUR_MS = 3_600_000;
const iso = (ms: number) => new Date(ms).toISOString();

/** A healthy publication as observed at `now`, with a test's changes. */
export function goodStatus(now: number, changes: Partial<PublicationStatus> = {}): PublicationStatus {
  const since = { lastTransitionTime: iso(now - HOUR_MS) };
  return {
    observedGeneration: 1,
    mesh: 'istio',
    id: 'spiffe://cluster.local/ns/emissary/sa/emissary',
    fingerprint: 'a1'.repeat(32),
    notBefore: iso(now - 6 * HOUR_MS),
    notAfter: iso(now + 18 * HOUR_MS),
    renewalTime: iso(now + 9 * HOUR_MS),
    emergencyTime: iso(now + 15 * HOUR_MS),
    roots: [
      {
        fingerprint: 'b2'.repeat(32),
        subject: 'O=cluster.local',
        notAfter: iso(now + 80_000 * HOUR_MS),
        state: 'named',
        since: iso(now - 2 * HOUR_MS),
      },
      {
        fingerprint: 'c3'.repeat(32),
        subject: 'O=cluster.local (old)',
        notAfter: iso(now + 8000 * HOUR_MS),
        state: 'retained',
        since: iso(now - 30 * HOUR_MS),
      },
    ],
    mappings: [{ kind: 'Mapping', namespace: 'shop', name: 'web', state: 'ok', context: 'istio' }],
    targets: [],
    rotations: 3,
    lastRotationTime: iso(now - 6 * HOUR_MS),
    conditions: [
      { type: 'Ready', status: 'True', reason: 'Serving', message: 'Certificate in force.', ...since },
      { type: 'Published', status: 'True', reason: 'InForce', message: 'Read back and verified.', ...since },
      { type: 'Degraded', status: 'False', reason: 'AsExpected', message: 'No problems.', ...since },
    ],
    ...changes,
  };
}

/** The same publication with a failing mesh and no certificate. */
export function badStatus(now: number, peer = 'istiod:15012'): PublicationStatus {
  const at = { lastTransitionTime: iso(now - HOUR_MS) };
  const code = 'ERR_MESH_UNREACHABLE';
  const message = `cannot reach ${peer}; check the address and NetworkPolicies`;
  const pointer = 'No verified certificate is published; see Published for the cause.';
  const cause = `${code}: ${message}`;
  const { id, fingerprint, notBefore, notAfter, renewalTime, emergencyTime, ...rest } = goodStatus(now);
  return {
    ...rest,
    lastError: {
      code,
      message,
      firstTime: iso(now - 600_000),
      time: iso(now),
    },
    nextAttemptTime: iso(now + 20_000),
    conditions: [
      { type: 'Ready', status: 'False', reason: 'NotPublished', message: pointer, ...at },
      { type: 'Published', status: 'False', reason: 'MeshUnreachable', message: cause, ...at },
      { type: 'Degraded', status: 'True', reason: 'MeshUnreachable', message: cause, ...at },
    ],
  };
}
