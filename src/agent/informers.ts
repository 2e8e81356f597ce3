import { type Allowed, ANY } from '../config/allow.ts';
import { isOurs } from '../core/plan.ts';
import type { Kube, Selection } from '../kube/api.ts';
import { type FailedAttempt, type Reflector, reflect } from '../kube/reflector.ts';
import { onlyNamed, RESOURCES, resourceOf } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Log, Runtime } from '../mesh/log.ts';
import {
  type KubeObject,
  keyOf,
  MANAGED_BY_LABEL,
  type ManagedFields,
  type ObjectRef,
  OWNER_LABEL,
  type Resource,
  refOf,
  withoutManagers,
} from '../objects/objects.ts';

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

interface SharedInformersOptions extends Runtime {
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

interface ViewOptions {
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

/** Which objects carry which owner label: of the objects of a thousand MeshCertificates, each needs only its own. */
class OwnerIndex {
  /** Mostly one key for each owner: an array takes a third of the memory of a set. */
  readonly #keys = new Map<string, readonly string[]>();
  readonly #owners = new Map<string, string>();

  /** The keys (`keyOf`) of the objects of one owner. */
  keysOf(owner: string): readonly string[] {
    return this.#keys.get(owner) ?? [];
  }

  /** Takes over what changed. Returns the owners whose objects these are, or were. */
  update(changed: Iterable<string>, items: ReadonlyMap<string, KubeObject>): ReadonlySet<string> {
    const concerned = new Set<string>();
    for (const key of changed) {
      const before = this.#owners.get(key);
      const owner = items.get(key)?.metadata.labels?.[OWNER_LABEL];
      if (before !== undefined) concerned.add(before);
      if (owner !== undefined) concerned.add(owner);
      if (before === owner) continue;
      if (before !== undefined) this.#remove(key, before);
      if (owner !== undefined) this.#add(key, owner);
    }
    return concerned;
  }

  #add(key: string, owner: string): void {
    this.#owners.set(key, owner);
    this.#keys.set(owner, [...this.keysOf(owner), key]);
  }

  #remove(key: string, owner: string): void {
    this.#owners.delete(key);
    const others = this.keysOf(owner).filter((one) => one !== key);
    if (others.length > 0) this.#keys.set(owner, others);
    else this.#keys.delete(owner);
  }
}

/** A mesh has one bundle, or two while its roots overlap; an agent follows some meshes in some namespaces. */
const TEXTS = 64;

/**
 * Makes what is remembered of an observed object: all that is compared, and of the managers only ourselves. What a
 * thousand publications have in common, such as the bundle, exists once. A private key is never among that.
 */
function objectTransform(): (object: KubeObject) => KubeObject {
  const shareText = sharedTexts();
  return (object) => {
    const { data } = object;
    // What differs in each object and is never compared.
    const { creationTimestamp: _, ...metadata } = object.metadata;
    const managedFields = (metadata.managedFields ?? []).filter(isOurs).map(withoutItems);
    const kept = { ...object, metadata: { ...metadata, managedFields } };
    return data === undefined
      ? kept
      : { ...kept, data: sharedData(data as Readonly<Record<string, string>>, shareText) };
  };
}

function sharedData(data: Readonly<Record<string, string>>, share: (text: string) => string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(data).map(([name, value]) => [name, name === 'tls.key' ? value : share(value)]),
  );
}

/** Which items of lists somebody owns is of no use here, and names an owner by its uid. */
function withoutItems({ manager, operation, fieldsV1 }: ManagedFields): ManagedFields {
  return { manager, operation, ...(fieldsV1 === undefined ? {} : { fieldsV1: namedOf(fieldsV1) }) };
}

function namedOf(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const named = Object.entries(fields).filter(([name]) => name.startsWith('f:'));
  return Object.fromEntries(
    named.map(([name, below]) => {
      const inner = typeof below === 'object' && below !== null ? namedOf(below as Record<string, unknown>) : below;
      return [name, inner];
    }),
  );
}

/** The newest few. */
function sharedTexts(): (text: string) => string {
  const known = new Map<string, string>();
  return (text) => {
    const shared = known.get(text) ?? text;
    known.delete(text);
    known.set(text, shared);
    const [oldest] = known.keys();
    if (known.size > TEXTS && oldest !== undefined) known.delete(oldest);
    return shared;
  };
}
