import type { KubeObject } from '../../../core/object.ts';
import { parseService } from '../reading/service.ts';
import { listedContexts } from './context-name.ts';
import { judgeMapping } from './mapping.ts';
import { serviceNameOf } from './service-name.ts';
import type { MappingVerdict, Target, TargetSelection, TargetWorld } from './target.ts';

/** The names of contexts that are ours, whether they exist or not. */
export function ownNames(selection: TargetSelection, contexts: readonly KubeObject[]): Set<string> {
  const names = new Set(contexts.map((context) => context.metadata.name));
  if (selection.isLeft) return names;
  if (!selection.rules) names.add(selection.contextName);
  for (const { contextName } of listedContexts(selection)) names.add(contextName);
  return names;
}

/** Namespaces whose Services, EndpointSlices and Pods must be read to judge these Mappings. */
export function namespacesBehind(
  selection: TargetSelection,
  world: Pick<TargetWorld, 'mappings' | 'contexts'>,
): Set<string> {
  if (!selection.rules) return new Set();
  const nothing: TargetWorld = { ...world, services: [], endpointSlices: [], pods: [] };
  return new Set(
    judgeMappings(selection, nothing).flatMap(({ mapping, service }) => {
      const { host } = parseService(service);
      const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
      return 'code' in name ? [] : [name.namespace];
    }),
  );
}

/** Judges every Mapping that is selected or names one of our contexts; the others are ignored. */
export function judgeMappings(selection: TargetSelection, world: TargetWorld): MappingVerdict[] {
  const ours = ownNames(selection, world.contexts);
  return world.mappings.flatMap((mapping) => judgeMapping(mapping, selection, world, ours) ?? []);
}

/**
 * The contexts that must exist: that of the mesh or of each listed or discovered target, and those of ours that a
 * Mapping still names although their target is gone.
 */
export function neededTargets(
  selection: TargetSelection,
  world: TargetWorld,
  verdicts: readonly MappingVerdict[] = judgeMappings(selection, world),
): Target[] {
  const needed = new Map<string, Target>();
  const add = (target: Target) => {
    if (!needed.has(target.contextName)) needed.set(target.contextName, target);
  };
  if (!selection.rules) add({ contextName: selection.contextName, sni: selection.sni });
  for (const { contextName, sni } of listedContexts(selection)) add({ contextName, sni });
  for (const { selected, outcome } of verdicts) if (selected && 'target' in outcome) add(outcome.target);
  const named = new Set(verdicts.map((verdict) => verdict.named));
  for (const context of world.contexts) {
    if (!named.has(context.metadata.name)) continue;
    const sni = (context.spec as { sni?: unknown } | undefined)?.sni;
    add({ contextName: context.metadata.name, sni: typeof sni === 'string' ? sni : undefined });
  }
  return [...needed.values()].sort((a, b) => (a.contextName < b.contextName ? -1 : 1));
}
