import type { KubeObject } from '../core/object.ts';
import type { Kube, Resource } from '../kube/api.ts';
import { type Reflector, reflect } from '../kube/reflector.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';

export interface DiscoveryOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

/** Who is told: often, and synchronously. */
export interface Watcher {
  changed(): void;
  failed(error: Error): void;
}

/** A shared view of one kind of object in one namespace, or in all. */
export interface View extends Disposable {
  /** False until everything was listed once: before that, absence proves nothing. */
  readonly synced: boolean;
  /** Of the newest failure since things last went well. */
  readonly failure: Error | undefined;
  items(): readonly KubeObject[];
}

/**
 * Watches of whole kinds, which several MeshCertificates share: one for each kind and namespace, closed with its
 * last view.
 */
export class Discovery {
  readonly #options: DiscoveryOptions;
  readonly #feeds = new Map<string, Feed>();

  constructor(options: DiscoveryOptions) {
    this.#options = options;
  }

  /** `namespace` undefined: all namespaces. */
  view(resource: Resource, namespace: string | undefined, watcher: Watcher): View {
    const id = `${resource.apiVersion}/${resource.plural}/${namespace ?? ''}`;
    let feed = this.#feeds.get(id);
    if (!feed) {
      feed = new Feed(resource, namespace, this.#options);
      this.#feeds.set(id, feed);
    }
    const shared = feed;
    shared.watchers.add(watcher);
    return {
      get synced() {
        return shared.reflector.synced;
      },
      get failure() {
        return shared.failure;
      },
      items: () => shared.reflector.items(),
      [Symbol.dispose]: () => {
        shared.watchers.delete(watcher);
        if (shared.watchers.size > 0) return;
        shared.close();
        if (this.#feeds.get(id) === shared) this.#feeds.delete(id);
      },
    };
  }

  /** Lists everything again: finds what a lost watch hid. */
  resync(): void {
    for (const feed of this.#feeds.values()) feed.reflector.resync();
  }
}

class Feed {
  readonly watchers = new Set<Watcher>();
  readonly reflector: Reflector;
  failure: Error | undefined;
  readonly #stop = new AbortController();

  constructor(resource: Resource, namespace: string | undefined, options: DiscoveryOptions) {
    const changed = () => {
      this.failure = undefined;
      for (const watcher of [...this.watchers]) watcher.changed();
    };
    this.reflector = reflect(
      options.kube,
      resource,
      { namespace },
      {
        ...options,
        signal: this.#stop.signal,
        onChange: changed,
        onSync: changed,
        onError: (error) => {
          this.failure = error;
          for (const watcher of [...this.watchers]) watcher.failed(error);
        },
      },
    );
  }

  close(): void {
    this.#stop.abort(new Error('no longer watched'));
  }
}
