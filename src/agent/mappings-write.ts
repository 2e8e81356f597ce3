import { type KubeObject, MAPPING_FIELD_MANAGER } from '../core/object.ts';
import { setsTls } from '../gateway/targets/mapping.ts';
import type { Kube } from '../kube/api.ts';
import { RESOURCES } from '../kube/resources.ts';
import type { Spacing } from './spacing.ts';

interface Means {
  readonly kube: Kube;
  readonly spacing: Spacing;
}

/**
 * Sets `spec.tls` of a Mapping and nothing else; `undefined` gives the field back. Conditional on the version that
 * was judged: a Mapping that has changed or gone since is a conflict, never a new object.
 */
export async function applyTls(
  mapping: KubeObject,
  contextName: string | undefined,
  { kube, spacing }: Means,
  signal: AbortSignal,
): Promise<void> {
  const { name, namespace, resourceVersion } = mapping.metadata;
  const { apiVersion, kind } = mapping;
  const turn = await spacing.beforeGateway(signal);
  try {
    await kube.apply(
      {
        apiVersion,
        kind,
        metadata: { name, ...(namespace && { namespace }), ...(resourceVersion && { resourceVersion }) },
        ...(contextName !== undefined && { spec: { tls: contextName } }),
      },
      { fieldManager: MAPPING_FIELD_MANAGER },
      signal,
    );
  } finally {
    turn[Symbol.dispose]();
  }
}

/**
 * Gives back `spec.tls` of every Mapping that we set to one of these contexts, as the cluster has them now. Returns
 * how many. `namespaces` undefined: all.
 */
export async function releaseMappings(
  means: Means,
  namespaces: readonly string[] | undefined,
  isOurs: (contextName: string) => boolean,
  signal: AbortSignal,
): Promise<number> {
  let released = 0;
  for (const resource of [RESOURCES.mappings, RESOURCES.tcpMappings]) {
    for (const namespace of namespaces ?? [undefined]) {
      const { items } = await means.kube.list(resource, { namespace }, signal);
      for (const mapping of items) {
        const named = (mapping.spec as { tls?: unknown } | undefined)?.tls;
        if (typeof named !== 'string' || !isOurs(named) || !setsTls(mapping)) continue;
        const { apiVersion, kind } = resource;
        await applyTls({ ...mapping, apiVersion, kind }, undefined, means, signal);
        released++;
      }
    }
  }
  return released;
}
