import type { KubeObject } from '../core/object.ts';
import type { TargetRules } from '../mesh/targeting.ts';
import { parseService } from './service.ts';
import { listedContexts } from './targets/context-name.ts';
import { judgeMapping } from './targets/mapping.ts';
import { serviceNameOf } from './targets/service-name.ts';

/** One TLSContext that the gateway needs: `sni` is the identity of the workload behind it. */
export interface Target {
  readonly contextName: string;
  readonly sni?: string | undefined;
}

/**
 * Why a Mapping is left alone. The codes of the mesh itself (`ERR_TARGET_UNMESHED`, `…_OTHER_MESH`,
 * `…_OPAQUE_PORT`, `…_SKIPPED_PORT`, `…_PROXY_PORT`, `…_NAME`) come from its TargetRules.
 */
export const TARGET_CODES = [
  'ERR_TARGET_SERVICE_SYNTAX',
  'ERR_TARGET_NO_HTTPS',
  'ERR_TARGET_AMBASSADOR_ID',
  'ERR_TARGET_FOREIGN_TLS',
  'ERR_TARGET_NOT_IN_CLUSTER',
  'ERR_TARGET_NO_SERVICE',
  'ERR_TARGET_NO_PORT',
  'ERR_TARGET_NO_ENDPOINTS',
  'ERR_TARGET_NO_POD',
  'ERR_TARGET_DISAGREE',
  'ERR_TARGET_NOT_LISTED',
  'ERR_TARGET_UNSEEN',
  'ERR_TARGET_UNSELECTED',
  'ERR_TARGET_NO_CONSENT',
  'ERR_TARGET_UNMESHED',
  'ERR_TARGET_OTHER_MESH',
  'ERR_TARGET_OPAQUE_PORT',
  'ERR_TARGET_SKIPPED_PORT',
  'ERR_TARGET_PROXY_PORT',
  'ERR_TARGET_NAME',
] as const;

/** What is wished of Mappings, from the MeshCertificate. */
export interface TargetSpec {
  /** Of the MeshCertificate. Mappings of others are set only with their consent. */
  readonly namespace: string;
  /** The TLSContext of the MeshCertificate; with rules, the stem of each target's context. */
  readonly contextName: string;
  readonly sni?: string | undefined;
  readonly ambassadorIds: readonly string[];
  /** Labels of the Mappings that are ours to set; absent: report only. */
  readonly selector?: Readonly<Record<string, string>> | undefined;
  /** Absent: one context serves the whole mesh. */
  readonly rules?: TargetRules | undefined;
}

/** What stands in the cluster. Lists may hold more than is asked about. */
export interface TargetWorld {
  readonly mappings: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  /** Namespaces whose Services, EndpointSlices and Pods are not known, and why. */
  readonly unseen?: ReadonlyMap<string, string> | undefined;
  /** Our own TLSContexts, also those that no Mapping needs any more. */
  readonly contexts: readonly KubeObject[];
}

/** What is to become of one Mapping. */
export interface MappingVerdict {
  readonly mapping: KubeObject;
  /** `spec.service` as the user wrote it. */
  readonly service: string;
  /** Whether the selector takes it. */
  readonly selected: boolean;
  /** The context that its `spec.tls` names now. */
  readonly named?: string | undefined;
  readonly outcome: { readonly target: Target } | { readonly code: string; readonly message: string };
}

/** The names of contexts that are ours, whether or not they stand. */
export function ownNames(wish: TargetSpec, contexts: readonly KubeObject[]): Set<string> {
  const names = new Set(contexts.map((context) => context.metadata.name));
  if (!wish.rules) names.add(wish.contextName);
  for (const { contextName } of listedContexts(wish)) names.add(contextName);
  return names;
}

/** Where Services, EndpointSlices and Pods have to be looked at to judge these Mappings. */
export function namespacesBehind(wish: TargetSpec, world: Pick<TargetWorld, 'mappings' | 'contexts'>): Set<string> {
  if (!wish.rules) return new Set();
  const nothing: TargetWorld = { ...world, services: [], endpointSlices: [], pods: [] };
  return new Set(
    judgeMappings(wish, nothing).flatMap(({ mapping, service }) => {
      const { host } = parseService(service);
      const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
      return 'code' in name ? [] : [name.namespace];
    }),
  );
}

/** Judges every Mapping that is selected or names one of our contexts; the others are not mentioned. */
export function judgeMappings(wish: TargetSpec, world: TargetWorld): MappingVerdict[] {
  const ours = ownNames(wish, world.contexts);
  return world.mappings.flatMap((mapping) => judgeMapping(mapping, wish, world, ours) ?? []);
}

/**
 * The contexts that must stand: of the mesh or of each listed or discovered target, and those of ours that a
 * Mapping still names though its target is gone.
 */
export function neededTargets(
  wish: TargetSpec,
  world: TargetWorld,
  verdicts: readonly MappingVerdict[] = judgeMappings(wish, world),
): Target[] {
  const needed = new Map<string, Target>();
  const add = (target: Target) => {
    if (!needed.has(target.contextName)) needed.set(target.contextName, target);
  };
  if (!wish.rules) add({ contextName: wish.contextName, sni: wish.sni });
  for (const { contextName, sni } of listedContexts(wish)) add({ contextName, sni });
  for (const { selected, outcome } of verdicts) if (selected && 'target' in outcome) add(outcome.target);
  const named = new Set(verdicts.map((verdict) => verdict.named));
  for (const context of world.contexts) {
    if (!named.has(context.metadata.name)) continue;
    const sni = (context.spec as { sni?: unknown } | undefined)?.sni;
    add({ contextName: context.metadata.name, sni: typeof sni === 'string' ? sni : undefined });
  }
  return [...needed.values()].sort((a, b) => (a.contextName < b.contextName ? -1 : 1));
}
