import { type KubeObject, MAPPING_FIELD_MANAGER } from '../../core/object.ts';
import type { Kube } from '../../kube/api.ts';
import type { BatchGap } from '../publish/batch-gap.ts';
import type { Fence } from '../publish/publisher.ts';

interface Means {
  readonly kube: Kube;
  readonly spacing: BatchGap;
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
  const { name, namespace, resourceVersion, uid } = mapping.metadata;
  const { apiVersion, kind } = mapping;
  const turn = await spacing.beforeGateway(signal);
  try {
    fence?.check();
    await kube.apply(
      {
        apiVersion,
        kind,
        // Without the uid, an apply to what is gone would make it anew.
        metadata: {
          name,
          ...(namespace && { namespace }),
          ...(resourceVersion && { resourceVersion }),
          ...(uid && { uid }),
        },
        spec: { tls: contextName },
      },
      { fieldManager: MAPPING_FIELD_MANAGER },
      signal,
    );
  } finally {
    turn[Symbol.dispose]();
  }
}
