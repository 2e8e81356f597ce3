import type { Clock } from '../../async/clock.ts';
import { type KubeObject, withoutManagers } from '../../core/object.ts';
import type { Kube, Resource, Selection } from '../../kube/api.ts';
import { onlyNamed } from '../../kube/paths.ts';
import { type Reflector, reflect } from '../../kube/reflector.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Log } from '../../mesh/log.ts';
import { interning } from './interning.ts';

export interface DiscoveryOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

/** Receives changes: often, and synchronously. */
export interface Watcher {
  /**
   * Keys (`keyOf`) of the objects that were added, changed or deleted; all keys, perhaps none, after the first list.
   */
  changed(keys: ReadonlySet<string>): void;
  failed(error: Error): void;
}

export interface ViewOptions {
  /** Watch only the object with this name. */
  readonly name?: string | undefined;
  /** Drop `managedFields`, which the watcher does not use. */
  readonly bare?: boolean | undefined;
  /** A kind that the cluster does not serve counts as listed: it has no objects. */
  readonly optional?: boolean | undefined;
}

/** A shared view of one kind of object in one namespace, or in all. */
export interface View extends Disposable {
  /** False until everything was listed once. Before that, the absence of an object proves nothing. */
  readonly synced: boolean;
  /** The kind is optional, and the cluster does not serve it. */
  readonly unserved: boolean;
  /** Why the view is not up to date now. */
  readonly problem: Error | undefined;
  items(): readonly KubeObject[];
  get(key: string): KubeObject | undefined;
}

/**
 * Watches of whole kinds, which several MeshCertificates share: one for each kind and namespace, closed with its
 * last view.
 */
export class SharedInformers {
  readonly #options: DiscoveryOptions;
  readonly #feeds = new Map<string, SharedWatch>();

  constructor(options: DiscoveryOptions) {
    this.#options = options;
  }

  /** `namespace` undefined: all namespaces. */
  view(resource: Resource, namespace: string | undefined, watcher: Watcher, options: ViewOptions = {}): View {
    const { name, bare = false, optional = false } = options;
    const id = [resource.apiVersion, resource.plural, namespace ?? '', name ?? '', bare, optional].join('/');
    const selection = name === undefined ? { namespace } : onlyNamed(name, namespace);
    let shared = this.#feeds.get(id);
    if (!shared) {
      const unused = (watch: SharedWatch) => {
        if (this.#feeds.get(id) === watch) this.#feeds.delete(id);
      };
      shared = new SharedWatch(resource, selection, { bare, optional }, this.#options, unused);
      this.#feeds.set(id, shared);
    }
    return new SharedView(shared, watcher);
  }

  /** Lists everything again: finds changes that a lost watch missed. */
  resync(): void {
    for (const feed of this.#feeds.values()) feed.reflector.resync();
  }
}

/** There are thousands of these, so it holds only its two ends. */
class SharedView implements View {
  readonly #shared: SharedWatch;
  readonly #watcher: Watcher;

  constructor(shared: SharedWatch, watcher: Watcher) {
    this.#shared = shared;
    this.#watcher = watcher;
    shared.join(watcher);
  }

  get synced(): boolean {
    return this.#shared.reflector.isSynced || this.unserved;
  }

  get unserved(): boolean {
    return this.#shared.unserved;
  }

  get problem(): Error | undefined {
    return this.unserved ? undefined : this.#shared.reflector.problem;
  }

  items(): readonly KubeObject[] {
    return [...this.#shared.reflector.items().values()];
  }

  get(key: string): KubeObject | undefined {
    return this.#shared.reflector.items().get(key);
  }

  [Symbol.dispose](): void {
    this.#shared.leave(this.#watcher);
  }
}

class SharedWatch {
  readonly #watchers = new Set<Watcher>();
  readonly reflector: Reflector;
  readonly #optional: boolean;
  readonly #stop = new AbortController();
  readonly #resource: Resource;
  readonly #log: Log;
  readonly #unused: (watch: SharedWatch) => void;

  /** `unused` is called when the last watcher has left and the watch has ended. */
  constructor(
    resource: Resource,
    selection: Selection,
    { bare, optional }: { readonly bare: boolean; readonly optional: boolean },
    { kube, clock, random, log }: DiscoveryOptions,
    unused: (watch: SharedWatch) => void,
  ) {
    this.#resource = resource;
    this.#log = log;
    this.#optional = optional;
    this.#unused = unused;
    const intern = interning();
    const reduced = resource.kind === RESOURCES.pods.kind ? withoutBulk : bare ? withoutManagers : undefined;
    this.reflector = reflect(kube, resource, selection, {
      clock,
      random,
      log,
      signal: this.#stop.signal,
      keep: (object) => intern(reduced?.(object) ?? object),
      onError: (error) => {
        this.#tell((watcher) => (this.unserved ? watcher.changed(new Set()) : watcher.failed(error)));
      },
    });
    void this.#follow();
  }

  get unserved(): boolean {
    const { problem, isSynced } = this.reflector;
    return this.#optional && !isSynced && problem instanceof KubeError && problem.status === 404;
  }

  join(watcher: Watcher): void {
    this.#watchers.add(watcher);
  }

  leave(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    if (this.#watchers.size > 0) return;
    this.#stop.abort(new Error('no longer watched'));
    this.#unused(this);
  }

  async #follow(): Promise<void> {
    for await (const keys of this.reflector.changes()) {
      this.#tell((watcher) => watcher.changed(keys));
    }
  }

  /** A watcher that throws must not stop the others, nor end the process. */
  #tell(word: (watcher: Watcher) => void): void {
    for (const watcher of [...this.#watchers]) {
      try {
        word(watcher);
      } catch (err) {
        this.#log.error({ err, resource: this.#resource.plural }, 'could not process a change');
      }
    }
  }
}

/** A pod is 5 to 20 KB; only its labels, annotations and ServiceAccount are used. */
function withoutBulk(pod: KubeObject): KubeObject {
  const { apiVersion, kind, metadata, spec } = pod;
  const { name, namespace, labels, annotations, resourceVersion } = metadata;
  const { serviceAccountName } = (spec ?? {}) as { serviceAccountName?: string };
  return {
    apiVersion,
    kind,
    metadata: {
      name,
      ...(namespace && { namespace }),
      ...(labels && { labels }),
      ...(annotations && { annotations }),
      ...(resourceVersion && { resourceVersion }),
    },
    spec: { serviceAccountName },
  };
}
