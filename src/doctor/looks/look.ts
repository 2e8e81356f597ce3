import type { Clock } from '../../async/clock.ts';
import { limitedTo } from '../../async/linked-signal.ts';
import type { KubeObject } from '../../core/object.ts';
import type { Kube } from '../../kube/api.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Severity } from '../../mesh/object-check.ts';

/** A check of the running system. Its code is stable and has a section in docs/doctor.md. */
export interface ClusterCheck {
  readonly code: string;
  readonly area: string;
  readonly severity: Severity;
  /** A sentence that is true when the check fails. */
  readonly title: string;
}

/** The result of one check. */
export interface Seen {
  readonly code: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  readonly object: KubeObject;
  /** What was observed, what is wrong and its consequence, or why it was not checked. */
  readonly message: string;
  readonly fix?: string;
  /** Set if it differs from the check's own. */
  readonly severity?: Severity;
}

export const LOOKS: readonly ClusterCheck[] = [
  { code: 'MC6001', area: 'Kubernetes', severity: 'error', title: 'The API server does not answer' },
  { code: 'MC6002', area: 'Kubernetes', severity: 'warning', title: 'Two clocks differ' },
  {
    code: 'MC6003',
    area: 'Kubernetes',
    severity: 'error',
    title: 'The definition of MeshCertificate is missing or incomplete',
  },
  { code: 'MC6004', area: 'Kubernetes', severity: 'error', title: 'The definitions of the gateway are missing' },
  { code: 'MC6005', area: 'agent', severity: 'error', title: 'No agent runs' },
  { code: 'MC6006', area: 'agent', severity: 'error', title: 'The pods of the agent are not ready' },
  { code: 'MC6007', area: 'agent', severity: 'error', title: 'No agent leads' },
  { code: 'MC6008', area: 'agent', severity: 'error', title: 'The agent lacks a permission' },
  { code: 'MC6009', area: 'publication', severity: 'error', title: 'A MeshCertificate is not ready' },
  { code: 'MC6010', area: 'mesh', severity: 'error', title: 'The mesh does not issue' },
  {
    code: 'MC6011',
    area: 'publication',
    severity: 'error',
    title: 'An object that a MeshCertificate publishes is missing',
  },
  { code: 'MC6012', area: 'publication', severity: 'error', title: 'A published pair would not be published again' },
  {
    code: 'MC6013',
    area: 'Kubernetes',
    severity: 'warning',
    title: 'A definition of the gateway is of the experimental channel',
  },
  { code: 'MC6014', area: 'agent', severity: 'warning', title: 'A binding under a shared name is for another agent' },
  { code: 'MC6101', area: 'installation', severity: 'error', title: 'You lack a permission for the installation' },
  { code: 'MC6102', area: 'installation', severity: 'error', title: 'The API server is too old' },
  { code: 'MC6103', area: 'installation', severity: 'warning', title: 'No gateway was found' },
  { code: 'MC6104', area: 'installation', severity: 'warning', title: 'No mesh was found' },
];

export interface Tools {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** For each check. */
  readonly limitMs: number;
}

/** The whole cluster as the object of a check. */
export const CLUSTER: KubeObject = { apiVersion: 'v1', kind: 'Cluster', metadata: { name: 'kubernetes' } };

/** Runs a check under the time limit; throws its error, or one that says how long it took. */
export async function within<T>(
  { clock, signal, limitMs }: Tools,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = () => new Error(`no answer within ${limitMs / 1000} s (--timeout)`);
  using limit = limitedTo(clock, limitMs, late, signal);
  return await run(limit.signal);
}

/** A refusal says nothing about what is behind it; anything else is a failure. */
export function failedOrSkipped(error: unknown, code: string, object: KubeObject, fix: string): Seen {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof KubeError && error.status === 403) return { code, state: 'skipped', object, message };
  return { code, state: 'failed', object, message, fix };
}

/** At most `limit` at a time, in order. */
export async function pooled<T, R>(items: readonly T[], limit: number, run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let at = 0;
  const worker = async () => {
    for (let mine = at++; mine < items.length; mine = at++) results[mine] = await run(items[mine] as T);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  return results;
}
