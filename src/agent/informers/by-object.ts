import { type Allowed, ANY } from '../../config/allow.ts';
import { type KubeObject, keyOf, MANAGED_BY_LABEL, type ObjectRef, refOf } from '../../core/object.ts';
import type { Kube, Resource, Selection } from '../../kube/api.ts';
import { type FailedAttempt, type Reflector, reflect } from '../../kube/reflector.ts';
import { resourceOf } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Runtime } from '../../mesh/log.ts';
import type { Watcher } from './by-kind.ts';
import { objectTransform } from './transform.ts';

export interface ObjectInformersOptions extends Runtime {
  readonly kube: Kube;
  /**
   * `names`: one watch for each object, which a Role with `resourceNames` allows. `labels`: one watch for each kind and
   * namespace scope, for a Role that may list; an object without our label is then found only by writing.
   */
  readonly by: 'names' | 'labels';
  /** With `labels`: the namespaces to watch; `ANY`: all of them with one watch. */
  readonly namespaces: Allowed;
  /** Kinds of gateways that are not built in. */
  readonly kinds: readonly Resource[];
  /** Called with each object as it was listed or changed, including the parts that are not stored. */
  readonly seen: (object: KubeObject) => void;
}

type Transform = ReturnType<typeof objectTransform>;

/** One reconciler's view of the objects that it observes. */
export interface ObjectView extends Disposable {
  /** False until each object's watch has listed once. Before that, the absence of an object proves nothing. */
  readonly synced: boolean;
  /** Why the view is not synced, or not up to date now. */
  readonly problem: Error | undefined;
  /** `keyOf` of each observed object, in the order in which they were given. */
  readonly keys: readonly string[];
  /** The objects that exist. */
  objects(): readonly KubeObject[];
  get(ref: ObjectRef): KubeObject | undefined;
  /** Whether the watch has shown our last write; until then `get` returns the response to the write. */
  readBack(ref: ObjectRef): boolean;
  /** Stores the response to a write, so that the next reconcile does not see the object as it was before. */
  wrote(object: KubeObject): void;
  /**
   * To be held during writes, until after `wrote`: a change that turns out to be our own write is not reported.
   * Afterwards, only the one that completes the reading back of our writes is.
   */
  writing(): Disposable;
}

/** Receives changes of the observed objects. */
export interface ObjectWatcher extends Pick<Watcher, 'recovered'> {
  /**
   * After each change of an object that is not our own write, once all our writes were read back, once all are listed,
   * and when a first list fails.
   */
  changed(): void;
}

/** The observed state of all objects that we manage, from watches that the reconcilers share. */
export class ObjectInformers {
  readonly #options: ObjectInformersOptions;
  readonly #transform = objectTransform();
  readonly #watches = new Map<string, Watch>();

  constructor(options: ObjectInformersOptions) {
    this.#options = options;
  }

  observe(refs: readonly ObjectRef[], watcher: ObjectWatcher): ObjectView {
    const watches = refs.map((ref) => this.#watchFor(ref));
    return new WatchedObjects(refs.map(keyOf), watches, watcher);
  }

  /** Why one of the watches is not up to date now. */
  get problem(): Error | undefined {
    return [...this.#watches.values()].map((watch) => watch.problem).find((problem) => problem !== undefined);
  }

  /** Lists everything again: finds changes that a lost watch missed. */
  resync(): void {
    for (const watch of this.#watches.values()) watch.resync();
  }

  #watchFor(ref: ObjectRef): Watch {
    const selection = this.#selection(ref);
    const resource = resourceOf(ref, this.#options.kinds);
    const id = `${resource.apiVersion}/${resource.plural}/${JSON.stringify(selection)}`;
    let watch = this.#watches.get(id);
    if (!watch) {
      watch = new Watch(resource, selection, this.#options, this.#transform, () => this.#watches.delete(id));
      this.#watches.set(id, watch);
    }
    return watch;
  }

  #selection(ref: ObjectRef): Selection {
    if (this.#options.by === 'names') {
      return { namespace: ref.namespace, fieldSelector: `metadata.name=${ref.name}` };
    }
    return {
      ...(this.#options.namespaces === ANY ? {} : { namespace: ref.namespace }),
      labelSelector: `${MANAGED_BY_LABEL}=meshcert`,
    };
  }
}

/** What happens while we write. */
interface OwnWrites {
  /** Keys of the objects that changed, by us or by others. */
  readonly changed: Set<string>;
  /** The versions of the objects that we wrote. */
  readonly versions: Map<string, string | undefined>;
}

/** There are thousands of these, each of a few objects: arrays take a third of the memory of maps. */
class WatchedObjects implements ObjectView {
  readonly keys: readonly string[];
  /** In the order of the keys. */
  readonly #watches: readonly Watch[];
  readonly #watcher: ObjectWatcher;
  #writes: OwnWrites | undefined;

  constructor(keys: readonly string[], watches: readonly Watch[], watcher: ObjectWatcher) {
    this.keys = keys;
    this.#watches = watches;
    this.#watcher = watcher;
    keys.forEach((key, at) => {
      watches[at]?.subscribe(key, this);
    });
  }

  get synced(): boolean {
    return this.#watches.every((watch) => watch.synced);
  }

  get problem(): Error | undefined {
    return this.#watches.map((watch) => watch.problem).find((problem) => problem !== undefined);
  }

  objects(): readonly KubeObject[] {
    return this.keys.map((key, at) => this.#watches[at]?.get(key)).filter((object) => object !== undefined);
  }

  get(ref: ObjectRef): KubeObject | undefined {
    const key = keyOf(ref);
    return this.#watch(key)?.get(key);
  }

  readBack(ref: ObjectRef): boolean {
    const key = keyOf(ref);
    return this.#watch(key)?.readBack(key) ?? false;
  }

  wrote(object: KubeObject): void {
    const key = keyOf(refOf(object));
    this.#writes?.versions.set(key, object.metadata.resourceVersion);
    this.#watch(key)?.wrote(object);
  }

  writing(): Disposable {
    const changed = new Set<string>();
    const versions = new Map<string, string | undefined>();
    this.#writes = { changed, versions };
    const isOurs = (key: string) =>
      versions.has(key) && this.#watch(key)?.get(key)?.metadata.resourceVersion === versions.get(key);
    return {
      [Symbol.dispose]: () => {
        this.#writes = undefined;
        if (![...changed].every(isOurs)) this.#watcher.changed();
      },
    };
  }

  /** `isOurs`: it is now as we wrote it. */
  changed(key: string, isOurs: boolean): void {
    if (this.#writes) this.#writes.changed.add(key);
    else if (!isOurs || this.keys.every((one, at) => this.#watches[at]?.readBack(one))) this.#watcher.changed();
  }

  recovered(): void {
    this.#watcher.recovered?.();
  }

  [Symbol.dispose](): void {
    this.keys.forEach((key, at) => {
      this.#watches[at]?.unsubscribe(key, this);
    });
  }

  #watch(key: string): Watch | undefined {
    return this.#watches[this.keys.indexOf(key)];
  }
}

class Watch {
  readonly #reflector: Reflector;
  readonly #stop = new AbortController();
  /** Mostly one for each key: a reconciler may subscribe again before it ends its previous subscription. */
  readonly #subscribers = new Map<string, readonly WatchedObjects[]>();
  /** Responses to our writes that the watch has not shown yet. */
  readonly #written = new Map<string, KubeObject>();
  readonly #keep: Transform;
  readonly #unused: () => void;

  /** `unused` is called when no subscriber is left and the watch has ended. */
  constructor(
    resource: Resource,
    selection: Selection,
    options: ObjectInformersOptions,
    transform: Transform,
    unused: () => void,
  ) {
    this.#keep = transform;
    this.#unused = unused;
    const { kube, clock, random, log, seen } = options;
    const onError = (_: Error, { isRepeated }: FailedAttempt) => {
      // What was listed remains known, whether or not it is followed now, unless its definition is gone.
      if (isRepeated || (this.#reflector.isSynced && !this.#unserved)) return;
      for (const key of this.#subscribers.keys()) this.#tell(key, false);
    };
    const { signal } = this.#stop;
    const keep = (object: KubeObject) => {
      seen(object);
      return transform(object);
    };
    const onList = () => this.#dropDeleted();
    const onRecovered = () => {
      for (const views of this.#subscribers.values()) for (const view of views) view.recovered();
    };
    this.#reflector = reflect(kube, resource, selection, {
      clock,
      random,
      log,
      signal,
      onError,
      onRecovered,
      onList,
      keep,
    });
    this.#pump().catch(() => {});
  }

  get #unserved(): boolean {
    const { problem } = this.#reflector;
    return problem instanceof KubeError && problem.status === 404;
  }

  /** A kind that the cluster does not serve has no objects, which counts as synced. */
  get synced(): boolean {
    return this.#reflector.isSynced || this.#unserved;
  }

  get problem(): Error | undefined {
    return this.#unserved ? undefined : this.#reflector.problem;
  }

  get(key: string): KubeObject | undefined {
    return this.#unserved ? undefined : (this.#written.get(key) ?? this.#reflector.items().get(key));
  }

  readBack(key: string): boolean {
    return !this.#written.has(key);
  }

  wrote(object: KubeObject): void {
    if (!this.#isSeen(object)) this.#written.set(keyOf(refOf(object)), this.#keep(object));
  }

  resync(): void {
    this.#reflector.resync();
  }

  subscribe(key: string, one: WatchedObjects): void {
    const others = this.#subscribers.get(key);
    this.#subscribers.set(key, others ? [...others, one] : [one]);
  }

  unsubscribe(key: string, one: WatchedObjects): void {
    const others = this.#subscribers.get(key)?.filter((other) => other !== one) ?? [];
    if (others.length > 0) this.#subscribers.set(key, others);
    else this.#subscribers.delete(key);
    if (this.#subscribers.size > 0) return;
    this.#stop.abort(new Error('no longer observed'));
    this.#unused();
  }

  async #pump(): Promise<void> {
    let first = true;
    for await (const keys of this.#reflector.changes()) {
      const ours = new Set<string>();
      for (const key of keys) {
        const wrote = this.#written.get(key);
        const seen = this.#reflector.items().get(key);
        if (wrote && seen?.metadata.resourceVersion === wrote.metadata.resourceVersion) ours.add(key);
        if (wrote && this.#isSeen(wrote)) this.#written.delete(key);
      }
      for (const key of first ? this.#subscribers.keys() : keys) this.#tell(key, ours.has(key));
      first = false;
    }
  }

  /** A list does not tell of an object that came and went since the watch before it. */
  #dropDeleted(): void {
    for (const [key, wrote] of this.#written) {
      if (this.#reflector.items().has(key) || !this.#isSeen(wrote)) continue;
      this.#written.delete(key);
      this.#tell(key, false);
    }
  }

  /** Whether the watch has come as far as this write. If it then shows no object, somebody deleted it. */
  #isSeen(wrote: KubeObject): boolean {
    return version(this.#reflector.version) >= version(wrote.metadata.resourceVersion);
  }

  #tell(key: string, isOurs: boolean): void {
    for (const one of this.#subscribers.get(key) ?? []) one.changed(key, isOurs);
  }
}

/** Versions of one kind are comparable numbers in every API server that stores in etcd, and in our sandbox server. */
function version(text = ''): bigint {
  return /^\d+$/.test(text) ? BigInt(text) : -1n;
}
