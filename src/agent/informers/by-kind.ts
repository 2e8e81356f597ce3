import { type KubeObject, OWNER_LABEL, withoutManagers } from '../../core/object.ts';
import type { Kube, Resource, Selection } from '../../kube/api.ts';
import { onlyNamed } from '../../kube/paths.ts';
import { type FailedAttempt, type Reflector, reflect } from '../../kube/reflector.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Log, Runtime } from '../../mesh/log.ts';
import { OwnerIndex } from './owner-index.ts';

export interface SharedInformersOptions extends Runtime {
  readonly kube: Kube;
}

/** Receives changes: often, and synchronously. */
export interface Watcher {
  /**
   * Keys (`keyOf`) of the objects that were added, changed or deleted; all keys, perhaps none, after the first list.
   */
  changed(keys: ReadonlySet<string>): void;
  /** The watch does not work. Called once while it fails for the same reason, and not at each attempt. */
  failed(error: Error): void;
  /** The watch works again after a failure. */
  recovered?(): void;
}

export interface ViewOptions {
  /** Watch only the object with this name. */
  readonly name?: string | undefined;
  /** Drop `managedFields`, which the watcher does not use. */
  readonly bare?: boolean | undefined;
  /** A kind that the cluster does not serve counts as listed: it has no objects. */
  readonly optional?: boolean | undefined;
  /** Show only the objects with this owner label, and report only their changes. */
  readonly owner?: string | undefined;
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
  readonly #options: SharedInformersOptions;
  readonly #watches = new Map<string, SharedWatch>();

  constructor(options: SharedInformersOptions) {
    this.#options = options;
  }

  /** `namespace` undefined: all namespaces. */
  view(resource: Resource, namespace: string | undefined, watcher: Watcher, options: ViewOptions = {}): View {
    const { name, bare = false, optional = false } = options;
    const id = [resource.apiVersion, resource.plural, namespace ?? '', name ?? '', bare, optional].join('/');
    const selection = name === undefined ? { namespace } : onlyNamed(name, namespace);
    let shared = this.#watches.get(id);
    if (!shared) {
      const unused = (watch: SharedWatch) => {
        if (this.#watches.get(id) === watch) this.#watches.delete(id);
      };
      shared = new SharedWatch(resource, selection, { bare, optional }, this.#options, unused);
      this.#watches.set(id, shared);
    }
    return new SharedView(shared, watcher, options.owner);
  }

  /** Lists everything again: finds changes that a lost watch missed. */
  resync(): void {
    for (const watch of this.#watches.values()) watch.reflector.resync();
  }
}

/** There are thousands of these, so it holds only its ends. */
class SharedView implements View {
  readonly #shared: SharedWatch;
  readonly #watcher: Watcher;
  readonly #owner: string | undefined;

  constructor(shared: SharedWatch, watcher: Watcher, owner: string | undefined) {
    this.#shared = shared;
    this.#watcher = watcher;
    this.#owner = owner;
    shared.join(watcher, owner);
  }

  get synced(): boolean {
    const { isListed, reflector } = this.#shared;
    return (this.#owner === undefined ? reflector.isSynced : isListed) || this.unserved;
  }

  get unserved(): boolean {
    return this.#shared.unserved;
  }

  get problem(): Error | undefined {
    return this.unserved ? undefined : this.#shared.reflector.problem;
  }

  items(): readonly KubeObject[] {
    return this.#owner === undefined ? [...this.#shared.items().values()] : this.#shared.itemsOf(this.#owner);
  }

  get(key: string): KubeObject | undefined {
    return this.#shared.items().get(key);
  }

  [Symbol.dispose](): void {
    this.#shared.leave(this.#watcher, this.#owner);
  }
}

const NOTHING: ReadonlyMap<string, KubeObject> = new Map();

class SharedWatch {
  /** By the number of its views: one watcher may have several. */
  readonly #watchers = new Map<Watcher, number>();
  readonly #ownWatchers = new Map<string, readonly Watcher[]>();
  readonly #index = new OwnerIndex();
  /** Who knows of the failure that lasts; one that came later is notified at the next attempt. */
  readonly #notified = new Set<Watcher>();
  readonly reflector: Reflector;
  #wasUnserved = false;
  /** The index has the first list. */
  isListed = false;
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
    { kube, clock, random, log }: SharedInformersOptions,
    unused: (watch: SharedWatch) => void,
  ) {
    this.#resource = resource;
    this.#log = log;
    this.#optional = optional;
    this.#unused = unused;
    this.reflector = reflect(kube, resource, selection, {
      clock,
      random,
      log,
      signal: this.#stop.signal,
      keep: resource.kind === RESOURCES.pods.kind ? withoutBulk : bare ? withoutManagers : undefined,
      onError: (error, attempt) => this.#failed(error, attempt),
      onRecovered: () => this.#recovered(),
    });
    void this.#follow();
  }

  get unserved(): boolean {
    const { problem } = this.reflector;
    return this.#optional && problem instanceof KubeError && problem.status === 404;
  }

  /** What was listed before the definition was deleted is gone with it, whether or not the watch has shown that. */
  items(): ReadonlyMap<string, KubeObject> {
    return this.unserved ? NOTHING : this.reflector.items();
  }

  itemsOf(owner: string): readonly KubeObject[] {
    const items = this.items();
    const known = this.#index.keysOf(owner).flatMap((key) => items.get(key) ?? []);
    // The label may have changed a moment ago.
    return known.filter(({ metadata }) => metadata.labels?.[OWNER_LABEL] === owner);
  }

  join(watcher: Watcher, owner: string | undefined): void {
    if (owner === undefined) this.#watchers.set(watcher, this.#viewsOf(watcher) + 1);
    else this.#ownWatchers.set(owner, [...this.#watchersOf(owner), watcher]);
  }

  leave(watcher: Watcher, owner: string | undefined): void {
    if (owner === undefined) {
      const left = this.#viewsOf(watcher) - 1;
      if (left > 0) this.#watchers.set(watcher, left);
      else this.#watchers.delete(watcher);
    } else {
      const all = this.#watchersOf(owner);
      const others = all.toSpliced(all.indexOf(watcher), 1);
      if (others.length > 0) this.#ownWatchers.set(owner, others);
      else this.#ownWatchers.delete(owner);
    }
    this.#notified.delete(watcher);
    if (this.#watchers.size + this.#ownWatchers.size > 0) return;
    this.#stop.abort(new Error('no longer watched'));
    this.#unused(this);
  }

  #failed(error: Error, { isRepeated }: FailedAttempt): void {
    this.#wasUnserved ||= this.unserved;
    if (!isRepeated) this.#notified.clear();
    const watchers = this.#all().filter((watcher) => !this.#notified.has(watcher));
    for (const watcher of watchers) this.#notified.add(watcher);
    this.#tell(watchers, (watcher) => (this.unserved ? watcher.changed(new Set()) : watcher.failed(error)));
  }

  #recovered(): void {
    this.#notified.clear();
    const keys = new Set(this.#wasUnserved ? this.reflector.items().keys() : []);
    this.#wasUnserved = false;
    this.#tell(this.#all(), (watcher) => {
      watcher.recovered?.();
      if (keys.size > 0) watcher.changed(keys);
    });
  }

  async #follow(): Promise<void> {
    for await (const keys of this.reflector.changes()) {
      const owners = this.#index.update(keys, this.reflector.items());
      const concerned = [...this.#watchers.keys(), ...[...owners].flatMap((owner) => this.#watchersOf(owner))];
      const watchers = this.isListed ? concerned : this.#all();
      this.isListed = true;
      this.#tell(watchers, (watcher) => watcher.changed(keys));
    }
  }

  #viewsOf(watcher: Watcher): number {
    return this.#watchers.get(watcher) ?? 0;
  }

  #watchersOf(owner: string): readonly Watcher[] {
    return this.#ownWatchers.get(owner) ?? [];
  }

  #all(): readonly Watcher[] {
    return [...this.#watchers.keys(), ...[...this.#ownWatchers.values()].flat()];
  }

  /** A watcher that throws must not stop the others, nor end the process. */
  #tell(watchers: readonly Watcher[], word: (watcher: Watcher) => void): void {
    for (const watcher of watchers) {
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
