import type { KubeObject } from '../core/object.ts';
import type { Kube, Resource } from '../kube/api.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';

export interface DiscoveryOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

/** A shared view of one kind of object in one namespace (`undefined`: in all). */
export interface View extends Disposable {
  readonly synced: boolean;
  items(): readonly KubeObject[];
}

/** Watches that several MeshCertificates share: one for each kind and namespace, closed with its last view. */
export interface Discovery {
  view(resource: Resource, namespace: string | undefined, told: { changed(): void; failed(error: Error): void }): View;
}
