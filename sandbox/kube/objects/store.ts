import type { Stored } from './object.ts';

export interface Change {
  readonly version: number;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: Stored;
  readonly previous: Stored | undefined;
}

type StoreListener = (change: Change) => void;

/** Not 1, so that a version that never existed, such as 1, is too old as on a server that has run for a while. */
const FIRST_VERSION = 100;
/** Enough history for any watch that lags by less than this many writes of one resource. */
const HISTORY = 10_000;

interface Shelf {
  readonly objects: Map<string, Stored>;
  readonly listeners: Set<StoreListener>;
  history: Change[];
  /** A watch may start at this version or later. */
  oldest: number;
}

/** All objects, one counter of resource versions, and each resource's recent history. */
export class Store {
  #version = FIRST_VERSION;
  #oldest = FIRST_VERSION;
  #shelves = new Map<string, Shelf>();

  get version(): number {
    return this.#version;
  }

  #shelf(resource: string): Shelf {
    let shelf = this.#shelves.get(resource);
    if (!shelf) {
      shelf = { objects: new Map(), listeners: new Set(), history: [], oldest: this.#oldest };
      this.#shelves.set(resource, shelf);
    }
    return shelf;
  }

  get(resource: string, namespace: string | undefined, name: string): Stored | undefined {
    return this.#shelf(resource).objects.get(address(namespace, name));
  }

  /** Sorted by namespace and name, as in etcd. */
  list(resource: string, namespace?: string): Stored[] {
    const found = [...this.#shelf(resource).objects].filter(
      ([, object]) => namespace === undefined || object.metadata.namespace === namespace,
    );
    return found.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object);
  }

  /** Writes the object with a new resource version; returns what was stored. */
  put(resource: string, object: Stored): Stored {
    const shelf = this.#shelf(resource);
    const key = address(object.metadata.namespace, object.metadata.name);
    const previous = shelf.objects.get(key);
    const stored = this.#stamped(object);
    shelf.objects.set(key, stored);
    this.#tell(shelf, { version: this.#version, type: previous ? 'MODIFIED' : 'ADDED', object: stored, previous });
    return stored;
  }

  remove(resource: string, object: Stored): Stored {
    const shelf = this.#shelf(resource);
    const key = address(object.metadata.namespace, object.metadata.name);
    const previous = shelf.objects.get(key);
    shelf.objects.delete(key);
    const last = this.#stamped(object);
    this.#tell(shelf, { version: this.#version, type: 'DELETED', object: last, previous });
    return last;
  }

  #stamped(object: Stored): Stored {
    this.#version += 1;
    return { ...object, metadata: { ...object.metadata, resourceVersion: String(this.#version) } };
  }

  #tell(shelf: Shelf, change: Change): void {
    shelf.history.push(change);
    if (shelf.history.length > HISTORY) {
      const dropped = shelf.history.splice(0, HISTORY / 2);
      shelf.oldest = dropped.at(-1)?.version ?? shelf.oldest;
    }
    for (const listener of [...shelf.listeners]) listener(change);
  }

  /** The changes after `version`; undefined when they are no longer in the history. */
  since(resource: string, version: number): readonly Change[] | undefined {
    const shelf = this.#shelf(resource);
    if (version < shelf.oldest) return undefined;
    return shelf.history.filter((change) => change.version > version);
  }

  subscribe(resource: string, listener: StoreListener): () => void {
    const { listeners } = this.#shelf(resource);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /** Drops all history, like etcd's compaction: older versions answer 410. */
  compact(): void {
    this.#version += 1;
    this.#oldest = this.#version;
    for (const shelf of this.#shelves.values()) {
      shelf.history = [];
      shelf.oldest = this.#version;
    }
  }

  get oldest(): number {
    return this.#oldest;
  }
}

const address = (namespace: string | undefined, name: string): string => `${namespace ?? ''}/${name}`;
