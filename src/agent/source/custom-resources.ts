import type { Clock } from '../../async/clock.ts';
import { Trigger } from '../../async/trigger.ts';
import { type AllowList, allowing } from '../../config/allow.ts';
import type { GatewayFields } from '../../config/schema/gateway-fields.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { validator } from '../../config/validate.ts';
import { FIELD_MANAGER, type KubeObject, keyOf, refOf, withoutManagers } from '../../core/object.ts';
import type { Problem } from '../../core/problem.ts';
import { reasonOf } from '../../core/problem.ts';
import { reportedStatus, setConditions } from '../../core/status.ts';
import type { Kube } from '../../kube/api.ts';
import { reflect } from '../../kube/reflector.ts';
import { RESOURCES } from '../../kube/resources.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { codeOf } from '../../mesh/error.ts';
import type { Log } from '../../mesh/log.ts';
import { interning } from '../informers/interning.ts';
import { AcceptedCertificates } from './accepted.ts';

export interface ControllerOptions {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly GatewayFields[];
  /** What MeshCertificates may make the agent do; absent: everything. */
  readonly allow?: AllowList | undefined;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Absent: all namespaces. */
  readonly namespaces?: readonly string[] | undefined;
  /** Whether this process writes statuses of this object. */
  readonly leads: (key: string) => boolean;
  readonly onError: (error: Error) => void;
}

/**
 * The cost of `take` grows with their number, and each status write triggers a call. With this pause before a call, all
 * calls together take about 5 % of the time.
 */
const MANY = 100;
const PAUSE_EACH_MS = 0.1;
const LONGEST_PAUSE_MS = 1_000;

/**
 * The MeshCertificates of the cluster now and at each change. An invalid one keeps the last valid version of its name,
 * and its status says what is wrong.
 */
export async function* customResources(
  options: ControllerOptions,
  signal: AbortSignal,
): AsyncGenerator<readonly MeshCertificate[]> {
  const inner = new AbortController();
  const changed = new Trigger();
  const stop = AbortSignal.any([signal, inner.signal]);
  const intern = interning();
  const scopes = options.namespaces ?? [undefined];
  const reflectors = scopes.map((namespace) =>
    reflect(options.kube, RESOURCES.meshCertificates, namespace === undefined ? {} : { namespace }, {
      clock: options.clock,
      random: options.random,
      log: options.log,
      signal: stop,
      keep: (object) => intern(withoutManagers(object)),
      onError: options.onError,
    }),
  );
  const pumps = reflectors.map(async (reflector) => {
    for await (const _ of reflector.changes()) changed.fire();
  });
  const gathering = new AcceptedCertificates(
    allowing(validator(options.adapters, options.gateways), options.adapters, options.allow ?? {}),
    options.gateways,
  );
  const logged = new Map<string, string>();
  /** What was written into the status of those that have no reconciler. */
  const written = new Map<string, string>();
  try {
    while (!signal.aborted) {
      await changed.wait(stop);
      const count = reflectors.reduce((sum, reflector) => sum + reflector.items().size, 0);
      if (count >= MANY) await options.clock.sleep(Math.min(LONGEST_PAUSE_MS, count * PAUSE_EACH_MS), stop);
      if (!reflectors.every((reflector) => reflector.isSynced)) continue;
      const items = reflectors.map((reflector) => reflector.items());
      yield gathering.take(items, (object, problem, reconciled) => {
        const key = keyOf(refOf(object));
        const text = `${object.metadata.generation} ${problem.message}`;
        if (logged.get(key) !== text) options.log.error({ certificate: key, code: problem.code }, problem.message);
        logged.set(key, text);
        if (reconciled || written.get(key) === text || !options.leads(key)) return;
        written.set(key, text);
        void tellInvalid(options, object, problem, stop);
      });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    inner.abort(new Error('no longer watched'));
    await Promise.allSettled(pumps);
  }
}

/** The status of a MeshCertificate of which no version was accepted yet. */
async function tellInvalid(
  { kube, clock, log, adapters }: ControllerOptions,
  object: KubeObject,
  { code, message }: Problem,
  signal: AbortSignal,
): Promise<void> {
  const before = reportedStatus(object.status);
  const { name, namespace, generation } = object.metadata;
  const judged = generation === undefined ? {} : { observedGeneration: generation };
  const degraded = {
    ...{ type: 'Degraded' as const, status: 'True' as const, reason: reasonOf(code), ...judged },
    message: `${code}: ${message}`,
  };
  const ready = {
    ...{ type: 'Ready' as const, status: 'False' as const, reason: 'NotPublished', ...judged },
    message: 'No spec of this MeshCertificate was accepted yet; see Degraded.',
  };
  const stalled = { ...degraded, type: 'Stalled' as const };
  const others = (before?.conditions ?? []).filter(({ type }) => type !== 'Reconciling');
  const conditions = setConditions(others, before ? [degraded, stalled] : [ready, degraded, stalled], clock.now());
  const named = Object.keys((object.spec ?? {}) as object);
  const mesh = adapters.find((adapter) => named.includes(adapter.mesh))?.mesh ?? '';
  const status = { mesh, roots: [], mappings: [], targets: [], rotations: 0, ...before, ...judged, conditions };
  const target = {
    apiVersion: object.apiVersion,
    kind: object.kind,
    metadata: { name, ...(namespace ? { namespace } : {}) },
  };
  try {
    await kube.apply(
      { ...target, status },
      { fieldManager: FIELD_MANAGER, force: true, subresource: 'status' },
      signal,
    );
  } catch (error) {
    const fields = { certificate: keyOf(refOf(object)), code: codeOf(error, 'ERR_UNKNOWN') };
    const why = error instanceof Error ? error.message : String(error);
    if (!signal.aborted) log.warn(fields, `could not write the status of an invalid MeshCertificate: ${why}`);
  }
}
