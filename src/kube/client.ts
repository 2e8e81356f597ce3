import type { Readable } from 'node:stream';
import { type Clock, systemClock } from '../async/clock.ts';
import { linkedTo } from '../async/linked-signal.ts';
import { readClaims } from '../mesh/input.ts';
import { describe, type KubeObject, type ObjectRef, type Resource, refOf } from '../objects/objects.ts';
import {
  type ApplyOptions,
  END_OF_STATE,
  endsState,
  type Kube,
  type ListResult,
  type Selection,
  type WatchEvent,
  type WatchSelection,
  type WriteOptions,
} from './api.ts';

import { collectionPath, objectPath, queryOf, resourceOf, selectors } from './resources.ts';
import { errorFromSize, errorFromSocket, errorFromStatus, type RequestContext } from './transport/classify.ts';
import { Credentials, type Impersonation, kubeConfigLoader } from './transport/credentials.ts';
import { absentIsUndefined, KubeError } from './transport/error.ts';

import { type Exchange, Transport } from './transport/transport.ts';

export interface ConnectOptions {
  /** Path of a kubeconfig; absent: `KUBECONFIG`, `~/.kube/config`, or the pod's ServiceAccount. */
  readonly kubeconfig?: string | undefined;
  /** A kubeconfig as text; wins over the path. */
  readonly kubeconfigText?: string | undefined;
  readonly context?: string | undefined;
  /** The user to act as, like `kubectl --as` and `--as-group`. */
  readonly impersonate?: Impersonation | undefined;
  /** `meshcert/1.2.3`; identifies this client in the audit log. */
  readonly userAgent: string;
  /** Kinds of gateways that are not built in. */
  readonly kinds?: readonly Resource[] | undefined;
  readonly clock?: Clock | undefined;
  /** Default 30 s. */
  readonly deadlineMs?: number | undefined;
  /** Concurrent requests, not counting watches; default 32. */
  readonly concurrency?: number | undefined;
  /** Called with the limit on concurrent writes, initially and whenever it changes. */
  readonly limited?: ((limit: number) => void) | undefined;
  /**
   * Called for each request with the verb and the resource as RBAC names them, and the HTTP status, 0 when there was no
   * response.
   */
  readonly answered?: ((verb: string, resource: string, status: number) => void) | undefined;
  /** Called for each response with the time of the server's clock, in epoch ms, cut to whole seconds. */
  readonly dated?: ((serverMs: number) => void) | undefined;
}

/** A connection to the API server. No request is made yet; a broken kubeconfig is reported by the first one. */
export function connect(options: ConnectOptions): Kube {
  const clock = options.clock ?? systemClock;
  const transport = new Transport({
    credentials: new Credentials(kubeConfigLoader(options), clock, options.impersonate),
    userAgent: options.userAgent,
    clock,
    deadlineMs: options.deadlineMs ?? 30_000,
    concurrency: options.concurrency ?? 32,
    limited: options.limited,
    dated: options.dated,
    answered: ({ verb, rule }, status) => options.answered?.(verb, rule?.resource ?? 'other', status),
  });
  return new Client(transport, options.kinds ?? [], clock);
}

/** An object in etcd has at most 1.5 MiB; in JSON, with its managed fields, it is a few times as large. */
const LONGEST_EVENT = 8 * 1024 * 1024;

/**
 * The number of objects in one page of a list: at 5 to 20 KB an object, a page and its decoded form take some
 * megabytes.
 */
const PAGE = 100;

class Client implements Kube {
  readonly #transport: Transport;
  readonly #kinds: readonly Resource[];
  readonly #clock: Clock;
  /** The plurals of which watches do not begin with the state; assumed of none until the server refuses it. */
  readonly #withoutState = new Set<string>();

  /** `kinds`: those of gateways that are not built in. */
  constructor(transport: Transport, kinds: readonly Resource[], clock: Clock) {
    this.#transport = transport;
    this.#kinds = kinds;
    this.#clock = clock;
  }

  async get<T extends KubeObject>(ref: ObjectRef, signal?: AbortSignal): Promise<T | undefined> {
    const path = objectPath(resourceOf(ref, this.#kinds), ref);
    return absentIsUndefined(this.#json<T>({ called: this.#called('get', ref), method: 'GET', path }, signal));
  }

  async list<T extends KubeObject>(
    resource: Resource,
    selection: Selection,
    signal?: AbortSignal,
  ): Promise<ListResult<T>> {
    const items: T[] = [];
    let resourceVersion = '';
    for await (const page of this.#pages<T>(resource, selection, signal)) {
      items.push(...page.items);
      resourceVersion = page.resourceVersion;
    }
    return { items, resourceVersion };
  }

  async *#pages<T extends KubeObject>(
    resource: Resource,
    selection: Selection,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<ListResult<T>> {
    const { apiVersion, kind } = resource;
    const path = collectionPath(resource, selection.namespace);
    const called = calledAll('list', resource, selection);
    let next: string | undefined;
    do {
      const query = queryOf({ ...selectors(selection), limit: PAGE, continue: next });
      const found = await this.#json<ListBody<T>>({ called, method: 'GET', path: path + query }, signal);
      const items = (found.items ?? []).map((item) => ({ ...item, apiVersion, kind }));
      yield { items, resourceVersion: found.metadata.resourceVersion };
      next = found.metadata.continue || undefined;
    } while (next !== undefined);
  }

  async *watch<T extends KubeObject>(
    resource: Resource,
    selection: WatchSelection,
    signal: AbortSignal = new AbortController().signal,
  ): AsyncGenerator<WatchEvent<T>> {
    let { resourceVersion } = selection;
    if (resourceVersion === undefined && !this.#withoutState.has(resource.plural)) {
      let isOpen = false;
      const opened = () => {
        isOpen = true;
        selection.opened?.();
      };
      try {
        return yield* this.#watchWithState<T>(resource, { ...selection, opened }, signal);
      } catch (error) {
        if (isOpen || !isRefusalOfState(error)) throw error;
      }
    }
    if (resourceVersion === undefined) {
      for await (const page of this.#pages<T>(resource, selection, signal)) {
        for (const object of page.items) yield { type: 'ADDED', object };
        resourceVersion = page.resourceVersion;
      }
      // The list was accepted: the parameters for the state were refused, and not the selection.
      this.#withoutState.add(resource.plural);
      const metadata = { resourceVersion, annotations: { [END_OF_STATE]: 'true' } };
      yield { type: 'BOOKMARK', object: { metadata } as unknown as T };
    }
    yield* this.#stream<T>(resource, selection, { resourceVersion }, signal);
  }

  /** A server that does not send all of the state within the time for a request is not asked for it again. */
  async *#watchWithState<T extends KubeObject>(
    resource: Resource,
    selection: WatchSelection,
    parent: AbortSignal,
  ): AsyncGenerator<WatchEvent<T>> {
    using stream = linkedTo(parent);
    const { deadlineMs } = this.#transport;
    let cancel: (() => void) | undefined;
    const opened = () => {
      cancel = this.#clock.after(deadlineMs, () => {
        this.#withoutState.add(resource.plural);
        const { verb, object } = calledAll('watch', resource, selection);
        const message = `${verb} ${object}: the server did not send all objects within ${deadlineMs / 1000} s. The agent lists them from now on.`;
        stream.abort(new KubeError('ERR_KUBE_SERVER', message, { status: 0 }));
      });
      selection.opened?.();
    };
    const from = { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan' };
    try {
      for await (const event of this.#stream<T>(resource, { ...selection, opened }, from, stream.signal)) {
        if (endsState(event)) cancel?.();
        yield event;
      }
    } finally {
      cancel?.();
    }
  }

  async *#stream<T extends KubeObject>(
    resource: Resource,
    selection: WatchSelection,
    from: Parameters<typeof queryOf>[0],
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<T>> {
    const { timeoutSeconds, opened } = selection;
    const query = queryOf({ ...selectors(selection), watch: true, allowWatchBookmarks: true, ...from, timeoutSeconds });
    const about = calledAll('watch', resource, selection);
    const path = collectionPath(resource, selection.namespace) + query;
    const body = await this.#transport.open({ called: about, method: 'GET', path }, signal);
    opened?.();
    try {
      for await (const line of lines(body, LONGEST_EVENT)) {
        const { type, object } = JSON.parse(line) as {
          type: WatchEvent['type'] | 'ERROR';
          object: T & { code?: number };
        };
        if (type === 'ERROR') throw errorFromStatus(about, object.code ?? 500, object, undefined);
        yield { type, object };
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof RangeError) throw errorFromSize(about, LONGEST_EVENT);
      throw error instanceof KubeError ? error : errorFromSocket(about, error);
    } finally {
      body.destroy();
    }
    signal.throwIfAborted();
  }

  create<T extends KubeObject>(object: T, options: WriteOptions, signal?: AbortSignal): Promise<T> {
    const ref = refOf(object);
    const path = collectionPath(resourceOf(ref, this.#kinds), ref.namespace) + queryOf(writing(options));
    return this.#json<T>({ called: this.#called('create', ref), method: 'POST', path, body: object }, signal);
  }

  apply<T extends KubeObject>(object: KubeObject, options: ApplyOptions, signal?: AbortSignal): Promise<T> {
    const ref = refOf(object);
    const query = queryOf({ ...writing(options), force: options.force });
    const path = objectPath(resourceOf(ref, this.#kinds), ref, options.subresource) + query;
    const contentType = 'application/apply-patch+yaml';
    return this.#json<T>(
      { called: this.#called('patch', ref, options.subresource), method: 'PATCH', path, body: object, contentType },
      signal,
    );
  }

  async replace<T extends KubeObject>(object: T, options: WriteOptions, signal?: AbortSignal): Promise<T> {
    const ref = refOf(object);
    if (object.metadata.resourceVersion === undefined)
      throw new TypeError(`replace ${describe(ref)}: metadata.resourceVersion is required`);
    const path = objectPath(resourceOf(ref, this.#kinds), ref) + queryOf(writing(options));
    return this.#json<T>({ called: this.#called('update', ref), method: 'PUT', path, body: object }, signal);
  }

  merge<T extends KubeObject>(ref: ObjectRef, patch: object, options: WriteOptions, signal?: AbortSignal): Promise<T> {
    const path = objectPath(resourceOf(ref, this.#kinds), ref) + queryOf(writing(options));
    const contentType = 'application/merge-patch+json';
    return this.#json<T>(
      { called: this.#called('patch', ref), method: 'PATCH', path, body: patch, contentType },
      signal,
    );
  }

  async delete(
    ref: ObjectRef,
    preconditions: { uid?: string; resourceVersion?: string },
    signal?: AbortSignal,
  ): Promise<boolean> {
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions };
    const exchange: Exchange = {
      called: this.#called('delete', ref),
      method: 'DELETE',
      path: objectPath(resourceOf(ref, this.#kinds), ref),
      body,
    };
    return (await absentIsUndefined(this.#json(exchange, signal))) !== undefined;
  }

  async token(
    account: { name: string; namespace: string },
    audience: string,
    expirationSeconds: number,
    signal?: AbortSignal,
  ) {
    const { status } = await this.#requestToken(account, { audiences: [audience], expirationSeconds }, signal);
    return { token: status.token, expiresAt: Date.parse(status.expirationTimestamp) };
  }

  async apiAudiences(account: { name: string; namespace: string } | undefined, signal?: AbortSignal) {
    if (account) return (await this.#requestToken(account, { expirationSeconds: 600 }, signal)).spec?.audiences ?? [];
    const own = readClaims(await this.#transport.bearerToken());
    return own?.account && own.audiences;
  }

  #requestToken(account: { name: string; namespace: string }, spec: object, signal: AbortSignal | undefined) {
    const ref = { apiVersion: 'v1', kind: 'ServiceAccount', ...account };
    const body = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
    const path = objectPath(resourceOf(ref, this.#kinds), ref, 'token');
    return this.#json<TokenBody>({ called: this.#called('create', ref, 'token'), method: 'POST', path, body }, signal);
  }

  accepts(token: string, signal?: AbortSignal): Promise<boolean> {
    return this.#transport.accepts(token, signal);
  }

  raw(path: string, signal?: AbortSignal): Promise<unknown> {
    return this.#transport.json({ called: { verb: 'get', object: path }, method: 'GET', path }, signal);
  }

  post<T extends KubeObject>(resource: Resource, object: KubeObject, signal?: AbortSignal): Promise<T> {
    const path = collectionPath(resource, object.metadata?.namespace);
    return this.#json<T>(
      { called: { verb: 'create', object: resource.kind }, method: 'POST', path, body: object },
      signal,
    );
  }

  close(): void {
    this.#transport.close();
  }

  async #json<T>(exchange: Exchange, signal: AbortSignal | undefined): Promise<T> {
    return (await this.#transport.json(exchange, signal)) as T;
  }

  #called(verb: string, ref: ObjectRef, subresource?: string): RequestContext {
    return called(verb, ref, resourceOf(ref, this.#kinds), subresource);
  }
}

/** Kubernetes before 1.32 does not accept the parameters. */
const isRefusalOfState = (error: unknown): boolean =>
  error instanceof KubeError && (error.status === 422 || error.status === 400);

interface ListBody<T> {
  readonly items: readonly T[] | null;
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
}

interface TokenBody {
  readonly spec?: { readonly audiences?: readonly string[] };
  readonly status: { readonly token: string; readonly expirationTimestamp: string };
}

function writing({ fieldManager, dryRun }: WriteOptions) {
  return { fieldManager, dryRun: dryRun ? 'All' : undefined };
}

const groupOf = (apiVersion: string): string => (apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '');

function called(verb: string, ref: ObjectRef, resource: Resource, subresource?: string): RequestContext {
  const { plural } = resource;
  const rule = {
    group: groupOf(ref.apiVersion),
    resource: subresource === undefined ? plural : `${plural}/${subresource}`,
    namespace: ref.namespace,
    name: verb === 'create' && !subresource ? undefined : ref.name,
  };
  return { verb, object: `${describe(ref)}${subresource ? ` (${subresource})` : ''}`, rule };
}

function calledAll(
  verb: string,
  resource: Resource,
  { namespace, fieldSelector, labelSelector }: Selection,
): RequestContext {
  const named = /^metadata\.name=([^,]+)$/.exec(fieldSelector ?? '')?.[1];
  const where = namespace === undefined ? 'in all namespaces' : `in namespace ${namespace}`;
  const which = [fieldSelector, labelSelector].filter(Boolean).join(', ');
  const rule = { group: groupOf(resource.apiVersion), resource: resource.plural, namespace, name: named };
  return { verb, object: `${resource.plural} ${where}${which ? ` (${which})` : ''}`, rule };
}

/**
 * The lines of a stream of text, without their line ends; a last line without one is dropped as incomplete. Throws a
 * RangeError for a line of more than `longest` characters.
 */
export async function* lines(stream: Readable, longest = Number.POSITIVE_INFINITY): AsyncGenerator<string> {
  stream.setEncoding('utf8');
  let rest: string[] = [];
  let length = 0;
  for await (const chunk of stream) {
    const parts = String(chunk).split('\n');
    const last = parts.pop() ?? '';
    for (const part of parts) {
      yield rest.length === 0 ? part : rest.join('') + part;
      rest = [];
      length = 0;
    }
    if (last !== '') rest.push(last);
    length += last.length;
    if (length > longest) throw new RangeError(`a line of more than ${longest} characters`);
  }
}
