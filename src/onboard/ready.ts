import type { Clock } from '../async/clock.ts';
import { Trigger } from '../async/trigger.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, keyOf, type ObjectRef, refOf } from '../core/object.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Kube, Resource } from '../kube/api.ts';
import { reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import { silentLog } from '../mesh/log.ts';
import { OnboardError } from './plan/error.ts';
import type { Announce } from './say.ts';

export interface WaitOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly say: Announce;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** An object of a gateway that a route will use, and its kind. */
export interface UsedObject {
  readonly ref: ObjectRef;
  readonly resource: Resource;
  /** What it lacks once it exists. */
  pending?(object: KubeObject): { readonly why: string } | undefined;
}

/** What a MeshCertificate still lacks, or undefined when it is published and this generation of it was judged. */
export function lacks(object: KubeObject | undefined): string | undefined {
  if (!object) return 'to be read from the API server';
  const status = object.status as PublicationStatus | undefined;
  const conditions = status?.conditions ?? [];
  const of = (type: string) => conditions.find((one) => one.type === type);
  const published = of('Published');
  if (conditions.length === 0 || published === undefined) return 'its first status: is an agent running?';
  if ((published.observedGeneration ?? 0) < (object.metadata.generation ?? 0)) return 'its new spec to be read';
  const degraded = of('Degraded');
  for (const type of ['Published', 'Ready']) {
    const condition = of(type);
    if (condition?.status === 'True') continue;
    const why = degraded?.status === 'True' ? degraded.message : condition?.message;
    return `${type} (${condition?.reason ?? 'Unknown'}: ${why ?? 'no status yet'})`;
  }
  return undefined;
}

/**
 * Waits until these MeshCertificates are Ready and these objects exist, and reports what it waits for. Throws
 * ERR_ONBOARD_NOT_READY after the given time.
 */
export async function waitReady(
  certificates: readonly MeshCertificate[],
  objects: readonly UsedObject[],
  options: WaitOptions,
): Promise<void> {
  await waitFor(
    certificates,
    (existing) => [
      ...certificates.flatMap((one) => {
        const lacking = lacks(existing.get(keyOf(refOf(one))));
        return lacking === undefined ? [] : [`${one.metadata.name} waits for ${lacking}`];
      }),
      ...objects.flatMap(({ ref, pending }) => {
        const found = existing.get(keyOf(ref));
        return found ? (pending?.(found)?.why ?? []) : [`${describe(ref)} is not there yet`];
      }),
    ],
    options,
    objects,
  );
}

/**
 * Waits until nothing is pending, checked at each change of MeshCertificates, or of objects of these kinds, in their
 * namespaces. `pendingOf` is given what exists there, by key.
 */
export async function waitFor(
  certificates: readonly KubeObject[],
  pendingOf: (existing: ReadonlyMap<string, KubeObject>) => readonly string[],
  { kube, clock, random, say, timeoutMs, signal }: WaitOptions,
  objects: readonly UsedObject[] = [],
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const changed = new Trigger();
  const places = [
    ...certificates.map((one) => ({ resource: RESOURCES.meshCertificates, namespace: one.metadata.namespace ?? '' })),
    ...objects.map(({ ref, resource }) => ({ resource, namespace: ref.namespace ?? '' })),
  ];
  const unique = new Map(places.map((one) => [`${one.resource.plural} ${one.namespace}`, one]));
  const followed = [...unique.values()].map(({ resource, namespace }) =>
    reflect(kube, resource, { namespace }, { clock, random, log: silentLog, signal: either }),
  );
  const pumps = followed.map(async (reflector) => {
    for await (const _ of reflector.changes()) changed.fire();
  });
  let late = false;
  clock.sleep(timeoutMs, either).then(
    () => {
      late = true;
      changed.fire();
    },
    () => {},
  );
  try {
    for (;;) {
      await changed.wait(either);
      const pending = followed.every(({ isSynced }) => isSynced)
        ? pendingOf(new Map(followed.flatMap((one) => [...one.items()])))
        : ['reading the current state from the API server'];
      if (pending.length === 0) return;
      if (late) {
        const message = `not there after ${Math.round(timeoutMs / 1000)} s: ${pending.join('; ')}; run \`meshcert status\` and read the agent's log, then run this again`;
        throw new OnboardError('ERR_ONBOARD_NOT_READY', message);
      }
      for (const text of pending) say.waiting(text);
    }
  } finally {
    stop.abort(new Error('waited enough'));
    await Promise.allSettled(pumps);
  }
}
