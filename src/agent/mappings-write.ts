import { type KubeObject, MAPPING_FIELD_MANAGER } from '../core/object.ts';
import type { Kube } from '../kube/api.ts';
import type { Fence } from './publisher.ts';
import type { Spacing } from './spacing.ts';

interface Means {
  readonly kube: Kube;
  readonly spacing: Spacing;
  readonly fence: Pick<Fence, 'check'> | undefined;
}

/**
 * Sets `spec.tls` of a Mapping and nothing else. Conditional on the version that
 * was judged: a Mapping that has changed or gone since is a conflict, never a new object.
 */
export async function applyTls(
  mapping: KubeObject,
  contextName: string,
  { kube, spacing, fence }: Means,
  signal: AbortSignal,
): Promise<void> {
  const { name, namespace, resourceVersion } = mapping.metadata;
  const { apiVersion, kind } = mapping;
  const turn = await spacing.beforeGateway(signal);
  try {
    fence?.check();
    await kube.apply(
      {
        apiVersion,
        kind,
        metadata: { name, ...(namespace && { namespace }), ...(resourceVersion && { resourceVersion }) },
        spec: { tls: contextName },
      },
      { fieldManager: MAPPING_FIELD_MANAGER },
      signal,
    );
  } finally {
    turn[Symbol.dispose]();
  }
}
