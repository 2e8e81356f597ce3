import { type Allowed, ANY } from '../config/allow.ts';
import { isOurs } from '../core/plan.ts';
import type { Scope } from '../gateway/gateway.ts';
import type { Kube } from '../kube/api.ts';
import { type FailedAttempt, type Reflector, reflect } from '../kube/reflector.ts';
import { onlyNamed, RESOURCES, resourceOf } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Runtime } from '../mesh/log.ts';
import {
  isKindOf,
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

type Keys = ReadonlySet<string>;
type Transform = (object: KubeObject) => KubeObject;

interface WatchScope extends Scope {
  readonly labelSelector?: string | undefined;
}

interface InformerOptions extends Runtime {
  readonly kube: Kube;
  /** Makes what is stored of each object; absent: what is used of its kind. */
  readonly keep?: Transform | undefined;
  /** Called with each object as it was listed or changed, including the parts that are not stored. */
  readonly seen?: ((object: KubeObject) => void) | undefined;
}

/** Receives changes: often, and synchronously. */
export interface Watcher {
  /**
   * Keys (`keyOf`) of the objects that were added, changed or deleted; all keys, perhaps none, after the first list.
   * `ours`: those of them that are now as we wrote them.
   */
  changed(keys: Keys, ours: Keys): void;
  /** The watch does not work. Called once while it fails for the same reason, and not at each attempt. */
  failed(error: Error): void;
  /** The watch works again after a failure. */
  recovered?(): void;
}

interface ViewOptions {
  /** Drop `managedFields`, which the watcher does not use. */
  readonly bare?: boolean | undefined;
  /** A kind that the cluster does not serve counts as listed: it has no objects. */
  readonly optional?: boolean | undefined;
  /** Show only the objects with this owner label, and report only their changes. */
  readonly owner?: string | undefined;
  /** Report only the changes of the object with this key. */
  readonly key?: string | undefined;
}

/** Watches that several share: one for each scope, closed with its last view. */
export class Informer {
  readonly #options: InformerOptions;
  readonly #watches = new Map<string, Watch>();

  constructor(options: InformerOptions) {
    this.#options = options;
  }

  view(scope: WatchScope, watcher: Watcher, options: ViewOptions = {}): View {
    const { resource, namespace, name, labelSelector } = scope;
    const { bare, optional } = options;
    const id = [resource.apiVersion, resource.plural, namespace, name, labelSelector, bare, optional].join('|');
    let watch = this.#watches.get(id);
    if (!watch) {
      watch = new Watch(scope, options, this.#options, () => this.#watches.delete(id));
      this.#watches.set(id, watch);
    }
    return new View(watch, watcher, options);
  }

  /** Why one of the watches is not up to date now. */
  get problem(): Error | undefined {
    return problemOf([...this.#watches.values()]);
  }

  /** Lists everything again: finds changes that a lost watch missed. */
  resync(): void {
    for (const { reflector } of this.#watches.values()) reflector.resync();
  }
}

const problemOf = (all: readonly { readonly problem: Error | undefined }[]): Error | undefined =>
  all.map(({ problem }) => problem).find((problem) => problem !== undefined);

/** What one watches who watches everything. */
const EVERYTHING = '';

/**
 * A shared view of one kind of object in one namespace, or in all. There are thousands of these, so it holds only its
 * ends.
 */
export class View implements Disposable {
  readonly #watch: Watch;
  readonly #watcher: Watcher;
  readonly #owner: string | undefined;
  readonly #about: string;

  constructor(watch: Watch, watcher: Watcher, { owner, key }: ViewOptions) {
    this.#watch = watch;
    this.#watcher = watcher;
    this.#owner = owner;
    this.#about = owner ?? key ?? EVERYTHING;
    watch.join(watcher, this.#about, owner !== undefined);
  }

  get scope(): Scope {
    return this.#watch.scope;
  }

  /** False until everything was listed once. Before that, the absence of an object proves nothing. */
  get synced(): boolean {
    return this.#watch.isListed || this.unserved;
  }

  /** The kind is optional, and the cluster does not serve it. */
  get unserved(): boolean {
    return this.#watch.unserved;
  }

  /** Why the view is not up to date now. */
  get problem(): Error | undefined {
    return this.#watch.problem;
  }

  items(): readonly KubeObject[] {
    return this.#owner === undefined ? [...this.#watch.items().values()] : this.#watch.itemsOf(this.#owner);
  }

  get(key: string): KubeObject | undefined {
    return this.#watch.get(key);
  }

  /** Whether the watch has shown our last write of this object; until then `get` returns the response to the write. */
  readBack(key: string): boolean {
    return this.#watch.readBack(key);
  }

  /** Takes the response to a write. */
  wrote(object: KubeObject): void {
    this.#watch.wrote(object);
  }

  [Symbol.dispose](): void {
    this.#watch.leave(this.#watcher, this.#about);
  }
}

const NOTHING: ReadonlyMap<string, KubeObject> = new Map();
const NONE: Keys = new Set();

class Watch {
  readonly scope: WatchScope;
  readonly reflector: Reflector;
  /** Whether the watchers know of the first list. */
  isListed = false;
  /** By what they watch: everything, what has an owner label, or the object with a key. One may be there repeatedly. */
  readonly #watchers: Lists<Watcher> = new Map();
  /** Who knows of the failure that lasts; one that came later is notified at the next attempt. */
  readonly #notified = new Set<Watcher>();
  /** Responses to our writes that the watch has not shown yet. */
  readonly #written = new Map<string, KubeObject>();
  #index: OwnerIndex | undefined;
  #wasUnserved = false;
  readonly #isOptional: boolean;
  readonly #options: InformerOptions;
  readonly #keep: Transform | undefined;
  readonly #stop = new AbortController();
  readonly #unused: () => void;

  /** `unused` is called when the last watcher has left and the watch has ended. */
  constructor(
    scope: WatchScope,
    { bare, optional = false }: ViewOptions,
    options: InformerOptions,
    unused: () => void,
  ) {
    const { resource, namespace, name, labelSelector } = scope;
    const { kube, clock, random, log, seen } = options;
    this.scope = scope;
    this.#isOptional = optional;
    this.#options = options;
    this.#unused = unused;
    this.#keep =
      options.keep ?? (resource.kind === RESOURCES.pods.kind ? withoutBulk : bare ? withoutManagers : undefined);
    const keep = (object: KubeObject) => {
      seen?.(object);
      return this.#kept(object);
    };
    const selection = name === undefined ? { namespace, labelSelector } : onlyNamed(name, namespace);
    this.reflector = reflect(kube, resource, selection, {
      clock,
      random,
      log,
      signal: this.#stop.signal,
      keep,
      onState: () => this.#dropDeleted(),
      onError: (error, attempt) => this.#failed(error, attempt),
      onRecovered: () => this.#recovered(),
    });
    void this.#follow();
  }

  get unserved(): boolean {
    const { problem } = this.reflector;
    return this.#isOptional && problem instanceof KubeError && problem.status === 404;
  }

  get problem(): Error | undefined {
    return this.unserved ? undefined : this.reflector.problem;
  }

  /** What was listed before the definition was deleted is gone with it, whether or not the watch has shown that. */
  items(): ReadonlyMap<string, KubeObject> {
    return this.unserved ? NOTHING : this.reflector.items();
  }

  itemsOf(owner: string): readonly KubeObject[] {
    const items = this.items();
    const known = this.#index?.keysOf(owner).flatMap((key) => items.get(key) ?? []) ?? [];
    // The label may have changed a moment ago.
    return known.filter(({ metadata }) => metadata.labels?.[OWNER_LABEL] === owner);
  }

  get(key: string): KubeObject | undefined {
    return this.unserved ? undefined : (this.#written.get(key) ?? this.reflector.items().get(key));
  }

  readBack(key: string): boolean {
    return !this.#written.has(key);
  }

  wrote(object: KubeObject): void {
    if (!this.#isSeen(object)) this.#written.set(keyOf(refOf(object)), this.#kept(object));
  }

  join(watcher: Watcher, about: string, isOwner: boolean): void {
    add(this.#watchers, about, watcher);
    if (isOwner) this.#index ??= new OwnerIndex(this.reflector.items());
  }

  leave(watcher: Watcher, about: string): void {
    remove(this.#watchers, about, watcher);
    this.#notified.delete(watcher);
    if (this.#watchers.size > 0 || this.#stop.signal.aborted) return;
    this.#stop.abort(new Error('no longer watched'));
    this.#unused();
  }

  #kept(object: KubeObject): KubeObject {
    return this.#keep ? this.#keep(object) : object;
  }

  #failed(error: Error, { isRepeated }: FailedAttempt): void {
    this.#wasUnserved ||= this.unserved;
    if (!isRepeated) this.#notified.clear();
    this.#tell(this.#watchers.keys(), (watcher) => {
      if (this.#notified.has(watcher)) return;
      this.#notified.add(watcher);
      if (this.unserved) watcher.changed(NONE, NONE);
      else watcher.failed(error);
    });
  }

  #recovered(): void {
    this.#notified.clear();
    const keys = new Set(this.#wasUnserved ? this.reflector.items().keys() : []);
    this.#wasUnserved = false;
    this.#tell(this.#watchers.keys(), (watcher) => {
      watcher.recovered?.();
      if (keys.size > 0) watcher.changed(keys, NONE);
    });
  }

  async #follow(): Promise<void> {
    for await (const keys of this.reflector.changes()) {
      const ours = this.#ours(keys);
      const owners = this.#index?.update(keys, this.reflector.items()) ?? [];
      const concerned = this.isListed ? [EVERYTHING, ...owners, ...keys] : this.#watchers.keys();
      this.isListed = true;
      this.#tell(concerned, (watcher) => watcher.changed(keys, ours));
    }
  }

  /** Those of the changed objects that are as we wrote them. What the watch has shown is no longer remembered apart. */
  #ours(keys: Keys): Keys {
    const ours = new Set<string>();
    for (const key of keys) {
      const wrote = this.#written.get(key);
      if (!wrote) continue;
      const seen = this.reflector.items().get(key);
      if (seen?.metadata.resourceVersion === wrote.metadata.resourceVersion) ours.add(key);
      if (this.#isSeen(wrote)) this.#written.delete(key);
    }
    return ours;
  }

  /** A list does not tell of an object that came and went since the watch before it. */
  #dropDeleted(): void {
    const all = [...this.#written];
    const gone = all.flatMap(([key, wrote]) => (this.reflector.items().has(key) || !this.#isSeen(wrote) ? [] : [key]));
    for (const key of gone) this.#written.delete(key);
    this.#tell(gone, (watcher) => watcher.changed(new Set(gone), NONE));
  }

  /** Whether the watch has come as far as this write. If it then shows no object, somebody deleted it. */
  #isSeen(wrote: KubeObject): boolean {
    return version(this.reflector.version) >= version(wrote.metadata.resourceVersion);
  }

  /** Once to each. A watcher that throws must not stop the others, nor end the process. */
  #tell(concerned: Iterable<string>, word: (watcher: Watcher) => void): void {
    for (const watcher of new Set([...concerned].flatMap((about) => this.#watchers.get(about) ?? []))) {
      try {
        word(watcher);
      } catch (err) {
        this.#options.log.error({ err, resource: this.scope.resource.plural }, 'could not process a change');
      }
    }
  }
}

/** Versions of one kind are comparable numbers in every API server that stores in etcd, and in our sandbox server. */
function version(text = ''): bigint {
  return /^\d+$/.test(text) ? BigInt(text) : -1n;
}

/** Mostly one for each key: an array takes a third of the memory of a set. */
type Lists<T> = Map<string, T[]>;

function add<T>(lists: Lists<T>, key: string, one: T): void {
  const all = lists.get(key);
  if (all) all.push(one);
  else lists.set(key, [one]);
}

/** Once, if it is there repeatedly. */
function remove<T>(lists: Lists<T>, key: string, one: T): void {
  const all = lists.get(key) ?? [];
  const at = all.indexOf(one);
  if (at >= 0) all.splice(at, 1);
  if (all.length === 0) lists.delete(key);
}

/** Which objects carry which owner label: of the objects of a thousand MeshCertificates, each needs only its own. */
class OwnerIndex {
  readonly #keys: Lists<string> = new Map();
  readonly #owners = new Map<string, string>();

  constructor(items: ReadonlyMap<string, KubeObject>) {
    this.update(items.keys(), items);
  }

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
      for (const one of [before, owner]) if (one !== undefined) concerned.add(one);
      if (before === owner) continue;
      if (before !== undefined) remove(this.#keys, before, key);
      if (owner !== undefined) add(this.#keys, owner, key);
      if (owner === undefined) this.#owners.delete(key);
      else this.#owners.set(key, owner);
    }
    return concerned;
  }
}

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

export interface ObjectInformerOptions extends Runtime {
  readonly kube: Kube;
  /**
   * `names`: one watch for each Secret and ConfigMap, which a Role with `resourceNames` allows, and one for each of the
   * gateways' kinds and namespaces. `labels`: one watch for each kind and namespace scope, for a Role that may list; an
   * object without our label is then found only by writing.
   */
  readonly by: 'names' | 'labels';
  /** With `labels`: the namespaces to watch; `ANY`: all of them with one watch. */
  readonly namespaces: Allowed;
  /** The kinds of the gateways, which every Role of the agent may list. */
  readonly kinds: readonly Resource[];
  /** Called with each object as it was listed or changed, including the parts that are not stored. */
  readonly seen: (object: KubeObject) => void;
}

/** The observed state of all objects that we manage. */
export class ObjectInformer {
  readonly #options: ObjectInformerOptions;
  readonly #informer: Informer;

  constructor(options: ObjectInformerOptions) {
    const { kube, clock, random, log, seen } = options;
    this.#options = options;
    this.#informer = new Informer({ kube, clock, random, log, seen, keep: objectTransform() });
  }

  observe(refs: readonly ObjectRef[], watcher: ObjectWatcher): ObjectView {
    return new WatchedObjects(
      this.#informer,
      refs.map((ref) => [keyOf(ref), this.#scopeOf(ref)]),
      watcher,
    );
  }

  get problem(): Error | undefined {
    return this.#informer.problem;
  }

  resync(): void {
    this.#informer.resync();
  }

  #scopeOf(ref: ObjectRef): WatchScope {
    const { by, namespaces, kinds } = this.#options;
    const { namespace, name } = ref;
    const resource = resourceOf(ref, kinds);
    if (by === 'names') return kinds.some(isKindOf(ref)) ? { resource, namespace } : { resource, namespace, name };
    const labelSelector = `${MANAGED_BY_LABEL}=meshcert`;
    return { resource, namespace: namespaces === ANY ? undefined : namespace, labelSelector };
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
class WatchedObjects implements ObjectView, Watcher {
  readonly keys: readonly string[];
  /** In the order of the keys. */
  readonly #views: readonly View[];
  readonly #watcher: ObjectWatcher;
  #writes: OwnWrites | undefined;

  constructor(informer: Informer, scopes: readonly (readonly [string, WatchScope])[], watcher: ObjectWatcher) {
    this.keys = scopes.map(([key]) => key);
    this.#watcher = watcher;
    this.#views = scopes.map(([key, scope]) => informer.view(scope, this, { key, optional: true }));
  }

  get synced(): boolean {
    return this.#views.every(({ synced }) => synced);
  }

  get problem(): Error | undefined {
    return problemOf(this.#views);
  }

  objects(): readonly KubeObject[] {
    return this.keys.flatMap((key, at) => this.#views[at]?.get(key) ?? []);
  }

  get(ref: ObjectRef): KubeObject | undefined {
    const key = keyOf(ref);
    return this.#view(key)?.get(key);
  }

  readBack(ref: ObjectRef): boolean {
    const key = keyOf(ref);
    return this.#view(key)?.readBack(key) ?? false;
  }

  wrote(object: KubeObject): void {
    const key = keyOf(refOf(object));
    this.#writes?.versions.set(key, object.metadata.resourceVersion);
    this.#view(key)?.wrote(object);
  }

  writing(): Disposable {
    const changed = new Set<string>();
    const versions = new Map<string, string | undefined>();
    this.#writes = { changed, versions };
    const isOurs = (key: string) =>
      versions.has(key) && this.#view(key)?.get(key)?.metadata.resourceVersion === versions.get(key);
    return {
      [Symbol.dispose]: () => {
        this.#writes = undefined;
        if (![...changed].every(isOurs)) this.#watcher.changed();
      },
    };
  }

  changed(keys: Keys, ours: Keys): void {
    const own = this.keys.filter((key) => keys.has(key));
    // None of them: all were listed, or their kind is not served.
    const concerned = own.length > 0 ? own : this.keys;
    if (this.#writes) for (const key of concerned) this.#writes.changed.add(key);
    else if (!concerned.every((key) => ours.has(key)) || this.keys.every((key, at) => this.#views[at]?.readBack(key))) {
      this.#watcher.changed();
    }
  }

  /** What was listed remains known, whether or not it is followed now. */
  failed(error: Error): void {
    if (this.#views.some(({ synced, problem }) => !synced && problem === error)) this.changed(NONE, NONE);
  }

  recovered(): void {
    this.#watcher.recovered?.();
  }

  [Symbol.dispose](): void {
    for (const view of this.#views) view[Symbol.dispose]();
  }

  #view(key: string): View | undefined {
    return this.#views[this.keys.indexOf(key)];
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

/** A mesh has one bundle, or two while its roots overlap; an agent follows some meshes in some namespaces. */
const TEXTS = 64;

/**
 * Makes what is remembered of an observed object: all that is compared, and of the managers only ourselves. What a
 * thousand publications have in common, such as the bundle, exists once. A private key is never among that.
 */
function objectTransform(): Transform {
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
