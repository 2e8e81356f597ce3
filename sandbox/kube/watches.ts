import type { ServerResponse } from 'node:http';
import type { Clock } from '../../src/async/clock.ts';
import { type Kind, storageOf } from './objects/kinds.ts';

import type { JsonFields, Stored } from './objects/object.ts';
import type { Predicate } from './objects/selectors.ts';
import { type ApiError, expired } from './objects/status.ts';
import type { Change, Store } from './objects/store.ts';

export interface WatchRequest {
  readonly kind: Kind;
  readonly namespace: string | undefined;
  readonly matches: Predicate;
  readonly resourceVersion: string;
  /** Everything is sent first, and a bookmark says where that ends: a list by a watch. */
  readonly initialEvents: boolean;
  readonly bookmarks: boolean;
  readonly timeoutSeconds: number;
  /** How an object is sent: unchanged, or as a table. */
  readonly show: (object: Stored) => JsonFields;
}

interface OpenWatch {
  readonly response: ServerResponse;
  readonly request: WatchRequest;
  pending: string[];
  /** Nothing more is sent after this. */
  end(): void;
}

/** The server's own interval of bookmarks. */
const BOOKMARK_MS = 60_000;

/** All open watches, and the faults that a test may cause in them. */
export class Watches {
  readonly #store: Store;
  readonly #clock: Clock;
  #open = new Set<OpenWatch>();
  #stalled = false;
  #muted = false;
  #closeAtOnce = false;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  get open(): number {
    return this.#open.size;
  }

  serve(request: WatchRequest, response: ServerResponse): void {
    const ended = new AbortController();
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    if (this.#closeAtOnce) {
      response.end();
      return;
    }
    const backlog = this.#backlog(request);
    if (backlog === undefined) {
      this.#refuse(response, expired(`too old resource version: ${request.resourceVersion} (${this.#store.oldest})`));
      return;
    }
    const unsubscribe = this.#store.subscribe(storageOf(request.kind), (change) => this.#tell(watch, change));
    const watch: OpenWatch = {
      response,
      request,
      pending: [],
      end: () => {
        this.#open.delete(watch);
        unsubscribe();
        ended.abort();
      },
    };
    this.#open.add(watch);
    response.on('close', watch.end);
    for (const change of backlog) this.#tell(watch, change);
    if (request.initialEvents) this.#bookmark(watch, { annotations: { 'k8s.io/initial-events-end': 'true' } });
    void this.#keep(watch, ended.signal).catch(() => undefined);
  }

  /** What to send first: everything for version 0 or none, else the history; undefined when that is gone. */
  #backlog({ kind, namespace, resourceVersion, initialEvents }: WatchRequest): readonly Change[] | undefined {
    if (!initialEvents && resourceVersion !== '' && resourceVersion !== '0')
      return this.#store.since(storageOf(kind), Number(resourceVersion));
    return this.#store.list(storageOf(kind), namespace).map((object) => ({
      version: Number(object.metadata.resourceVersion),
      type: 'ADDED',
      object,
      previous: undefined,
    }));
  }

  async #keep(watch: OpenWatch, signal: AbortSignal): Promise<void> {
    let left = watch.request.timeoutSeconds * 1000;
    while (left > 0) {
      const step = Math.min(left, BOOKMARK_MS);
      await this.#clock.sleep(step, signal);
      left -= step;
      this.#bookmark(watch);
    }
    watch.end();
    watch.response.end();
  }

  #tell(watch: OpenWatch, { type, object, previous }: Change): void {
    const { namespace, matches, show } = watch.request;
    if (namespace !== undefined && object.metadata.namespace !== namespace) return;
    const is = type !== 'DELETED' && matches(object);
    const was = type !== 'ADDED' && previous !== undefined && matches(previous);
    if (this.#muted || (!is && !was)) return;
    const seen = is ? (was ? 'MODIFIED' : 'ADDED') : 'DELETED';
    this.#send(watch, { type: seen, object: show(object) });
  }

  #bookmark(watch: OpenWatch, more: object = {}): void {
    if (!watch.request.bookmarks) return;
    const { kind, version, group } = watch.request.kind;
    const apiVersion = group === '' ? version : `${group}/${version}`;
    const metadata = { resourceVersion: String(this.#store.version), creationTimestamp: null, ...more };
    this.#send(watch, { type: 'BOOKMARK', object: { kind, apiVersion, metadata } });
  }

  #send(watch: OpenWatch, event: object): void {
    const line = `${JSON.stringify(event)}\n`;
    if (this.#stalled) watch.pending.push(line);
    else watch.response.write(line);
  }

  #refuse(response: ServerResponse, error: ApiError): void {
    response.end(`${JSON.stringify({ type: 'ERROR', object: error.body() })}\n`);
  }

  /** Sends a bookmark to every watch that accepts them. */
  bookmark(): void {
    for (const watch of this.#open) this.#bookmark(watch);
  }

  /** Ends every watch, cleanly or by cutting its connection. */
  drop(how: 'end' | 'cut' = 'end'): void {
    for (const watch of [...this.#open]) {
      watch.end();
      if (how === 'end') watch.response.end();
      else watch.response.destroy();
    }
  }

  /** While on, watches stay open and send nothing: a half-open connection. The missed events are sent when it ends. */
  stall(on: boolean): void {
    this.#stalled = on;
    if (on) return;
    for (const watch of this.#open) {
      for (const line of watch.pending) watch.response.write(line);
      watch.pending = [];
    }
  }

  /** While on, open watches receive no events, but still bookmarks: a broken server that loses events. */
  mute(on: boolean): void {
    this.#muted = on;
  }

  /** While on, each new watch is accepted and ended at once. */
  closeAtOnce(on: boolean): void {
    this.#closeAtOnce = on;
  }

  /** Reports to every open watch that its version is too old, as after a compaction, and ends it. */
  expire(): void {
    for (const watch of [...this.#open]) {
      watch.end();
      this.#refuse(watch.response, expired('The resourceVersion for the provided watch is too old.'));
    }
  }
}
