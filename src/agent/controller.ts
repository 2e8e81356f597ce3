import { conflicts } from '../config/conflicts.ts';
import { formatPath } from '../config/issue.ts';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { type Validation, validator } from '../config/validate.ts';
import { FIELD_MANAGER, type KubeObject, keyOf, refOf } from '../core/object.ts';
import { type PublicationStatus, setCondition } from '../core/status.ts';
import type { Kube } from '../kube/api.ts';
import { type Reflector, reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';
import { Trigger } from '../mesh/trigger.ts';

export interface ControllerOptions {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
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
 * The MeshCertificates of the cluster now and at each change. One that is wrong keeps the last good wish of its name
 * in force and says in its status what is wrong.
 */
export async function* customResources(
  options: ControllerOptions,
  signal: AbortSignal,
): AsyncGenerator<readonly MeshCertificate[]> {
  const inner = new AbortController();
  const changed = new Trigger();
  const stop = AbortSignal.any([signal, inner.signal]);
  const scopes = options.namespaces ?? [undefined];
  const reflectors = scopes.map((namespace) =>
    reflect(options.kube, RESOURCES.meshCertificates, namespace === undefined ? {} : { namespace }, {
      clock: options.clock,
      random: options.random,
      log: options.log,
      signal: stop,
      onError: options.onError,
    }),
  );
  const pumps = reflectors.map(async (reflector) => {
    for await (const _ of reflector.changes()) changed.fire();
  });
  const good = new Map<string, MeshCertificate>();
  const validate = validator(options.adapters);
  const told = new Map<string, string>();
  try {
    while (!signal.aborted) {
      await changed.wait(stop);
      if (!reflectors.every((reflector) => reflector.isSynced)) continue;
      yield current(reflectors, good, validate, (object, problem) => {
        const key = keyOf(refOf(object));
        const text = `${object.metadata.generation} ${problem}`;
        if (told.get(key) === text) return;
        told.set(key, text);
        options.log.error({ certificate: key, code: 'ERR_CONFIG' }, problem);
        if (options.leads(key)) void tellInvalid(options, object, problem, stop);
      });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    inner.abort(new Error('no longer watched'));
    await Promise.allSettled(pumps);
  }
}

function current(
  reflectors: readonly Reflector[],
  good: Map<string, MeshCertificate>,
  validate: (object: unknown) => Validation,
  invalid: (object: KubeObject, problem: string) => void,
): readonly MeshCertificate[] {
  const present = new Set<string>();
  const fresh: KubeObject[] = [];
  for (const object of reflectors.flatMap((reflector) => [...reflector.items().values()])) {
    const key = keyOf(refOf(object));
    present.add(key);
    const result = validate(object);
    if (result.ok) good.set(key, result.value);
    else {
      const problem = result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`).join('; ');
      invalid(object, `the spec is refused, the last good one stays in force: ${problem}`);
    }
    fresh.push(object);
  }
  for (const key of good.keys()) if (!present.has(key)) good.delete(key);
  const wished = [...good.values()].sort(byAge);
  const refused = new Set<MeshCertificate>();
  for (const conflict of conflicts(wished)) {
    refused.add(conflict.later);
    invalid(conflict.later, `${formatPath(conflict.path)}: ${conflict.message}`);
  }
  return wished.filter((one) => !refused.has(one));
}

/** The elder keeps a contested name. */
function byAge(a: MeshCertificate, b: MeshCertificate): number {
  const age = (one: MeshCertificate) => `${one.metadata.creationTimestamp ?? ''} ${keyOf(refOf(one))}`;
  return age(a) < age(b) ? -1 : 1;
}

async function tellInvalid(
  { kube, clock, log }: ControllerOptions,
  object: KubeObject,
  problem: string,
  signal: AbortSignal,
): Promise<void> {
  const before = object.status as PublicationStatus | undefined;
  const { name, namespace, generation } = object.metadata;
  const degraded = {
    type: 'Degraded' as const,
    status: 'True' as const,
    reason: 'Config',
    message: `ERR_CONFIG: ${problem}`,
    ...(generation === undefined ? {} : { observedGeneration: generation }),
  };
  const status = { ...before, conditions: setCondition(before?.conditions ?? [], degraded, clock.now()) };
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
    if (!signal.aborted) log.warn({ err: error }, 'the status of an invalid MeshCertificate could not be written');
  }
}
