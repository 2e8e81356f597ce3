import type { Clock } from '../../src/async/clock.ts';
import { Trigger } from '../../src/async/trigger.ts';
import { EMISSARY_RESOURCES } from '../../src/gateway/emissary/config.ts';
import type { Kube } from '../../src/kube/api.ts';
import { type ReflectOptions, type Reflector, reflect } from '../../src/kube/reflector.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { type KubeObject, keyOf, type Resource, refOf } from '../../src/objects/objects.ts';

import type { EnvoySnapshot } from './configuration.ts';

export interface Batch {
  readonly snapshot: EnvoySnapshot;
  readonly changedMappings: ReadonlySet<string>;
  /** Whether a Secret is among the changes. */
  readonly secrets: boolean;
}

const WATCHED = {
  mappings: [EMISSARY_RESOURCES.mappings, EMISSARY_RESOURCES.tcpMappings],
  contexts: [EMISSARY_RESOURCES.tlsContexts],
  secrets: [RESOURCES.secrets],
  modules: [EMISSARY_RESOURCES.modules],
  resolvers: [EMISSARY_RESOURCES.consulResolvers],
} as const satisfies Record<keyof EnvoySnapshot, readonly Resource[]>;

/**
 * What the gateway reads, in batches: all changes within the window after a first one form one batch. The first batch
 * has all objects.
 */
export async function* watchBatches(
  kube: Kube,
  batchMs: number,
  options: ReflectOptions<KubeObject> & { readonly clock: Clock },
): AsyncIterable<Batch> {
  const changed = new Trigger();
  const follow = (resource: Resource): Reflector => {
    const reflector = reflect(kube, resource, {}, options);
    (async () => {
      for await (const _ of reflector.changes()) changed.fire();
    })().catch(() => {});
    return reflector;
  };
  const reflectors = Object.entries(WATCHED).map(([name, resources]) => [name, resources.map(follow)] as const);
  await Promise.all(reflectors.flatMap(([, all]) => all.map((one) => one.synced)));

  let before = new Map<string, string>();
  for (;;) {
    const objects = Object.fromEntries(
      reflectors.map(([name, all]) => [name, all.flatMap((one) => [...one.items().values()])]),
    ) as unknown as EnvoySnapshot;
    const now = versions(objects);
    const keys = differing(before, now);
    if (keys.length > 0 || before.size === 0) {
      yield {
        snapshot: objects,
        changedMappings: new Set(before.size === 0 ? [] : keys.filter((key) => /\|(TCP)?Mapping\|/.test(key))),
        secrets: keys.some((key) => key.includes('|Secret|')),
      };
    }
    before = now;
    await changed.wait(options.signal);
    await options.clock.sleep(batchMs, options.signal);
  }
}

function versions(snapshot: EnvoySnapshot): Map<string, string> {
  const all = [
    ...snapshot.mappings,
    ...snapshot.contexts,
    ...snapshot.secrets,
    ...snapshot.modules,
    ...snapshot.resolvers,
  ];
  return new Map(all.map((object) => [keyOf(refOf(object)), object.metadata.resourceVersion ?? '']));
}

function differing(before: ReadonlyMap<string, string>, now: ReadonlyMap<string, string>): string[] {
  return [...new Set([...before.keys(), ...now.keys()])].filter((key) => before.get(key) !== now.get(key));
}
