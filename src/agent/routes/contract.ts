import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { ObjectRef } from '../../core/object.ts';
import type { Gateway, RouteState } from '../../gateway/gateway.ts';
import type { MeshView } from '../../gateway/input.ts';
import type { Kube } from '../../kube/api.ts';
import type { Runtime } from '../../mesh/log.ts';
import type { Targeting } from '../../mesh/targeting.ts';
import type { SharedInformers } from '../informers/by-kind.ts';
import type { BatchGap } from '../publish/batch-gap.ts';
import type { Fence } from '../publish/publisher.ts';

/** A route that uses one of our objects now, whether or not it is selected. */
export interface RouteUser {
  /** Kind, namespace and name. */
  readonly route: string;
  readonly object: ObjectRef;
}

export interface RouteKeeperOptions extends Runtime {
  readonly kube: Kube;
  /** Shared by all keepers of an agent. */
  readonly sharedInformers: SharedInformers;
  /** Judge and report, write nothing. */
  readonly dryRun: boolean;
  readonly certificate: Pick<MeshCertificate, 'metadata' | 'spec'>;
  readonly gateway: Gateway;
  /** The opened adapter if it has the capability (`isTargeting`); undefined: one identity serves the mesh. */
  readonly targeting: Targeting | undefined;
  /** What gateways must know of the mesh. */
  readonly mesh: MeshView;
  /** Whether an object of the publication exists that is of no kind of the gateway's, such as the Secret of the pair. */
  isPublished(ref: ObjectRef): boolean;
  /** The batch gap of the gateway, shared with the writes of its Secrets. */
  readonly batchGap: BatchGap;
  /** Targets, states or what `sync` can do have changed. Called often and synchronously. */
  onChange(): void;
  /** A watch or a write failed and is retried; for status and metrics. */
  onError(error: Error): void;
}

/**
 * Maintains the routes of one gateway. The caller publishes what `targets()` needs, calls `sync` after each change, and
 * retires those of its objects that `targets()` does not need once it is `complete`.
 */
export interface RouteKeeping {
  /** Everything was listed once and the mesh's rules are known. Before that, a missing target proves nothing. */
  readonly complete: boolean;
  /** What the routes need of the publication, as far as is known; the same array until the routes are judged again. */
  targets(): readonly unknown[];
  states(): readonly RouteState[];
  /** The routes that would lose their object if ours were deleted; the same array until there is a change. */
  users(): readonly RouteUser[];
  /**
   * Changes each route whose object exists. Writes nothing when there is no change; safe to call at any time. The fence
   * is checked before each write, which may have to wait for its turn.
   */
  sync(signal: AbortSignal, fence: Fence): Promise<void>;
  /**
   * Watches until the signal; the returned promise resolves when everything has ended. A failed watch does not reject
   * it.
   */
  run(signal: AbortSignal): Promise<void>;
}
