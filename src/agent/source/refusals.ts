import { retryDelay } from '../../core/backoff.ts';
import { FIELD_MANAGER, type KubeObject } from '../../core/object.ts';
import { type Problem, reasonOf } from '../../core/problem.ts';
import { reportedStatus, setConditions } from '../../core/status.ts';
import type { Kube } from '../../kube/api.ts';
import { codeOf } from '../../mesh/error.ts';
import type { Runtime } from '../../mesh/log.ts';

export interface Refusal {
  readonly object: KubeObject;
  readonly problem: Problem;
  /** Its last valid version has a reconciler, which writes its status. */
  readonly reconciled: boolean;
}

interface Reported {
  /** Of this object, at this generation, for this reason. */
  readonly text: string;
  written: boolean;
}

export interface RefusalsOptions extends Runtime {
  readonly kube: Kube;
  /** The names of all meshes. */
  readonly meshes: readonly string[];
  /** Whether this process writes statuses of this object. */
  readonly leads: (key: string) => boolean;
  /** Called when `report` is to be called again. */
  readonly onRetry: () => void;
}

/** Logs each refused MeshCertificate once, and writes the status of those that have no reconciler. */
export class Refusals {
  readonly #options: RefusalsOptions;
  #reported = new Map<string, Reported>();
  #failures = 0;

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** Takes all refusals that hold now, by key. */
  report(refusals: ReadonlyMap<string, Refusal>, signal: AbortSignal): void {
    const { leads, log } = this.#options;
    const before = this.#reported;
    this.#reported = new Map();
    for (const [key, refusal] of refusals) {
      const { object, problem } = refusal;
      const text = `${object.metadata.uid} ${object.metadata.generation} ${problem.message}`;
      const known = before.get(key);
      const reported = known?.text === text ? known : { text, written: false };
      this.#reported.set(key, reported);
      if (reported !== known) log.error({ certificate: key, code: problem.code }, problem.message);
      const mayWrite = !refusal.reconciled && leads(key);
      if (mayWrite && !reported.written) void this.#write(key, refusal, reported, signal);
      // Another writer's status, or that of a reconciler, may follow.
      reported.written = mayWrite;
    }
  }

  async #write(key: string, { object, problem }: Refusal, reported: Reported, signal: AbortSignal): Promise<void> {
    const { kube, clock, random, log, onRetry } = this.#options;
    const { name, namespace } = object.metadata;
    const target = {
      apiVersion: object.apiVersion,
      kind: object.kind,
      metadata: { name, ...(namespace ? { namespace } : {}) },
    };
    const status = this.#statusOf(object, problem);
    try {
      await kube.apply(
        { ...target, status },
        { fieldManager: FIELD_MANAGER, force: true, subresource: 'status' },
        signal,
      );
      this.#failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      reported.written = false;
      const fields = { certificate: key, code: codeOf(error, 'ERR_UNKNOWN') };
      const why = error instanceof Error ? error.message : String(error);
      log.warn(fields, `could not write the status of an invalid MeshCertificate: ${why}`);
      this.#failures += 1;
      clock.sleep(retryDelay(this.#failures, random), signal).then(onRetry, () => {});
    }
  }

  #statusOf(object: KubeObject, { code, message }: Problem): object {
    const before = reportedStatus(object.status);
    const { generation } = object.metadata;
    const judged = generation === undefined ? {} : { observedGeneration: generation };
    const degraded = {
      type: 'Degraded' as const,
      status: 'True' as const,
      reason: reasonOf(code),
      ...judged,
      message: `${code}: ${message}`,
    };
    const ready = {
      type: 'Ready' as const,
      status: 'False' as const,
      reason: 'NotPublished',
      ...judged,
      message: 'No spec of this MeshCertificate was accepted yet; see Degraded.',
    };
    const stalled = { ...degraded, type: 'Stalled' as const };
    const others = (before?.conditions ?? []).filter(({ type }) => type !== 'Reconciling');
    const now = this.#options.clock.now();
    const conditions = setConditions(others, before ? [degraded, stalled] : [ready, degraded, stalled], now);
    const named = Object.keys((object.spec ?? {}) as object);
    const mesh = this.#options.meshes.find((one) => named.includes(one)) ?? '';
    return { mesh, roots: [], mappings: [], targets: [], rotations: 0, ...before, ...judged, conditions };
  }
}
