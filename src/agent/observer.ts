import { type KubeObject, keyOf, MANAGED_BY_LABEL, type ObjectRef, refOf } from '../core/object.ts';
import type { Kube, Resource, Selection } from '../kube/api.ts';
import { KubeError } from '../kube/error.ts';
import { type Reflector, reflect } from '../kube/reflector.ts';
import { resourceOf } from '../kube/resources.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';
import { keeping } from './kept.ts';

export interface ObserverOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /**
   * `names`: one watch for each object, which a Role with `resourceNames` allows. `labels`: one watch for each kind
   * and namespace scope, for a Role that may list; what does not carry our label is then found only by writing.
   */
  readonly by: 'names' | 'labels';
  /** With `labels`: the namespaces to watch; absent: all at once. */
  readonly namespaces?: readonly string[] | undefined;
  readonly onError: (error: Error) => void;
  /** Told of each object as it was listed or changed, with all that is not remembered of it. */
  readonly seen?: (object: KubeObject) => void;
}

type Keep = ReturnType<typeof keeping>;

/** One worker's view of the objects that it keeps. */
export interface Interest extends Disposable {
  /** False until each object's watch has listed once: before that, absence proves nothing. */
  readonly synced: boolean;
  /** Why it is not synced, or does not follow now. */
  readonly problem: Error | undefined;
  get(ref: ObjectRef): KubeObject | undefined;
  /** Whether the watch has shown what we wrote last; until then `get` tells what the write was answered with. */
  readBack(ref: ObjectRef): boolean;
  /** Takes note of a write's answer, so that the next look does not see the object as it was before. */
  wrote(object: KubeObject): void;
}

/** What stands in the cluster of all that we manage, kept by watches and shared by the workers. */
export class Observer {
  readonly #options: ObserverOptions & { keep: Keep };
  readonly #watches = new Map<string, Watch>();

  constructor(options: ObserverOptions) {
    this.#options = { ...options, keep: keeping() };
  }

  /** Watches the given objects; `changed` is called after each change of one of them, and once all are listed. */
  observe(refs: readonly ObjectRef[], changed: () => void): Interest {
    const watches = new Map<string, Watch>();
    // Of this interest alone: the same worker may hold the next one before it lets go of this.
    const told = () => changed();
    for (const ref of refs) {
      const watch = this.#watchFor(ref);
      watch.subscribe(keyOf(ref), told);
      watches.set(keyOf(ref), watch);
    }
    return {
      get synced() {
        return [...watches.values()].every((watch) => watch.synced);
      },
      get problem() {
        return [...watches.values()].map((watch) => watch.problem).find((problem) => problem !== undefined);
      },
      get: (ref) => watches.get(keyOf(ref))?.get(keyOf(ref)),
      readBack: (ref) => watches.get(keyOf(ref))?.readBack(keyOf(ref)) ?? false,
      wrote: (object) => watches.get(keyOf(refOf(object)))?.wrote(object),
      [Symbol.dispose]: () => {
        for (const [key, watch] of watches) if (watch.unsubscribe(key, told)) this.#close(watch);
      },
    };
  }

  /** Why some watch does not follow now. */
  get problem(): Error | undefined {
    return [...this.#watches.values()].map((watch) => watch.problem).find((problem) => problem !== undefined);
  }

  /** Lists everything again: finds what a lost watch hid. */
  resync(): void {
    for (const watch of this.#watches.values()) watch.resync();
  }

  #watchFor(ref: ObjectRef): Watch {
    const selection = this.#selection(ref);
    const resource = resourceOf(ref);
    const id = `${resource.apiVersion}/${resource.plural}/${JSON.stringify(selection)}`;
    let watch = this.#watches.get(id);
    if (!watch) {
      watch = new Watch(id, resource, selection, this.#options);
      this.#watches.set(id, watch);
    }
    return watch;
  }

  #selection(ref: ObjectRef): Selection {
    if (this.#options.by === 'names') {
      return { namespace: ref.namespace, fieldSelector: `metadata.name=${ref.name}` };
    }
    const listed = this.#options.namespaces;
    return {
      ...(listed ? { namespace: ref.namespace } : {}),
      labelSelector: `${MANAGED_BY_LABEL}=meshcert`,
    };
  }

  #close(watch: Watch): void {
    watch.close();
    this.#watches.delete(watch.id);
  }
}

class Watch {
  readonly id: string;
  readonly #reflector: Reflector;
  readonly #stop = new AbortController();
  readonly #subscribers = new Map<string, Set<() => void>>();
  /** Answers to our writes that the watch has not shown yet. */
  readonly #written = new Map<string, KubeObject>();
  readonly #keep: Keep;
  #unserved = false;

  constructor(id: string, resource: Resource, selection: Selection, options: ObserverOptions & { keep: Keep }) {
    this.id = id;
    this.#keep = options.keep;
    const { kube, clock, random, log, seen = () => {} } = options;
    const onError = (error: Error) => {
      options.onError(error);
      this.#unserved = error instanceof KubeError && error.status === 404;
      for (const key of this.#subscribers.keys()) this.#tell(key);
    };
    const { signal } = this.#stop;
    const keep = (object: KubeObject) => {
      seen(object);
      return options.keep(object);
    };
    this.#reflector = reflect(kube, resource, selection, { clock, random, log, signal, onError, keep });
    this.#pump().catch(() => {});
  }

  /** A kind that the cluster does not serve has no objects: that is known too. */
  get synced(): boolean {
    return this.#reflector.isSynced || this.#unserved;
  }

  get problem(): Error | undefined {
    return this.#unserved ? undefined : this.#reflector.problem;
  }

  get(key: string): KubeObject | undefined {
    return this.#written.get(key) ?? this.#reflector.items().get(key);
  }

  readBack(key: string): boolean {
    return !this.#written.has(key);
  }

  wrote(object: KubeObject): void {
    const key = keyOf(refOf(object));
    if (!reached(this.#reflector.items().get(key), object)) this.#written.set(key, this.#keep(object));
  }

  resync(): void {
    this.#reflector.resync();
  }

  subscribe(key: string, changed: () => void): void {
    const all = this.#subscribers.get(key) ?? new Set();
    this.#subscribers.set(key, all.add(changed));
  }

  /** True when nobody is left. */
  unsubscribe(key: string, changed: () => void): boolean {
    const all = this.#subscribers.get(key);
    all?.delete(changed);
    if (all?.size === 0) this.#subscribers.delete(key);
    return this.#subscribers.size === 0;
  }

  close(): void {
    this.#stop.abort(new Error('no longer observed'));
  }

  async #pump(): Promise<void> {
    let first = true;
    for await (const keys of this.#reflector.changes()) {
      this.#unserved = false;
      for (const key of keys) {
        const wrote = this.#written.get(key);
        const seen = this.#reflector.items().get(key);
        // Gone from the watch is newer than our write too: somebody deleted it.
        if (wrote && (seen === undefined || reached(seen, wrote))) this.#written.delete(key);
      }
      for (const key of first ? this.#subscribers.keys() : keys) this.#tell(key);
      first = false;
    }
  }

  #tell(key: string): void {
    for (const changed of this.#subscribers.get(key) ?? []) changed();
  }
}

/** Versions of one object are comparable numbers in every API server that stores in etcd, and so in ours. */
function reached(seen: KubeObject | undefined, wrote: KubeObject): boolean {
  return version(seen) >= version(wrote);
}

function version(object: KubeObject | undefined): bigint {
  const text = object?.metadata.resourceVersion ?? '';
  return /^\d+$/.test(text) ? BigInt(text) : -1n;
}
