import { type KubeObject, preconditionOf } from '../../core/object.ts';
import type { RouteChange } from '../../gateway/gateway.ts';
import type { Kube } from '../../kube/api.ts';
import type { BatchGap } from '../publish/batch-gap.ts';
import type { Fence } from '../publish/publisher.ts';

interface RouteWriting {
  readonly kube: Kube;
  /** The kind of gateway whose route it is. */
  readonly gateway: string;
  readonly batchGap: BatchGap;
  readonly fence: Fence;
}

/**
 * Sets the fields of a change on a route and nothing else. Conditional on the version that was judged: a route that has
 * changed or was deleted since is a conflict, never a new object.
 */
export async function applyChange(
  route: KubeObject,
  { fields, fieldManager }: RouteChange,
  { kube, gateway, batchGap, fence }: RouteWriting,
  signal: AbortSignal,
): Promise<void> {
  const { name, namespace } = route.metadata;
  const { apiVersion, kind } = route;
  const turn = await batchGap.beforeGateway(gateway, signal);
  try {
    fence.check();
    await kube.apply(
      {
        ...fields,
        apiVersion,
        kind,
        metadata: { name, ...(namespace && { namespace }), ...preconditionOf(route) },
      },
      { fieldManager },
      signal,
    );
  } finally {
    turn[Symbol.dispose]();
  }
}
