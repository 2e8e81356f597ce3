import { isDeepStrictEqual } from 'node:util';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { Definitions } from '../../sandbox/kube/objects/definitions.ts';
import { type Kind, storageOf } from '../../sandbox/kube/objects/kinds.ts';
import type { Stored } from '../../sandbox/kube/objects/object.ts';
import { KindRegistry } from '../../sandbox/kube/objects/registry.ts';
import { ApiError } from '../../sandbox/kube/objects/status.ts';
import { Store } from '../../sandbox/kube/objects/store.ts';
import { Writes } from '../../sandbox/kube/writes/writes.ts';
import type { Clock } from '../../src/async/clock.ts';
import type { ApplyOptions, Kube, ListResult, WatchEvent, WriteOptions } from '../../src/kube/api.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { errorFromSocket, errorFromStatus } from '../../src/kube/transport/classify.ts';
import { type KubeObject, keyOf, type ObjectRef, type Resource, refOf } from '../../src/objects/objects.ts';

/** The fault of one call. `lost` is carried out, and its answer never arrives. */
export type CallFault = 'refused' | 'lost' | 'conflict';

/** One change that the API showed, or an accepted write that changed nothing. */
export interface Shown {
  readonly by: string;
  readonly verb: 'create' | 'apply' | 'merge' | 'replace' | 'delete';
  readonly before: KubeObject | undefined;
  readonly after: KubeObject | undefined;
  /** Of the object that was sent. */
  readonly sentVersion: string | undefined;
}

/** One API server in memory: the sandbox's own writes and rules without a network. */
export class ModelCluster {
  readonly #store = new Store();
  readonly #registry = new KindRegistry();
  readonly #writes: Writes;
  readonly #shown: (shown: Shown) => void;
  readonly #kinds = new Map<string, Kind>();

  constructor(clock: Clock, namespace: string, shown: (shown: Shown) => void) {
    this.#writes = new Writes(this.#store, clock);
    new Definitions(this.#store, this.#registry);
    this.#shown = shown;
    this.#put({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
    for (const definition of ambassadorDefinitions()) this.#put(definition as Stored);
  }

  /** A connection for one client; `before` runs ahead of each write and may make it fail. */
  connect(by: string, before: (verb: Shown['verb'], ref: ObjectRef) => Promise<CallFault | undefined>): Kube {
    return new Connection(by, before, this);
  }

  get(ref: ObjectRef): KubeObject | undefined {
    const kind = this.kind(ref);
    return this.#store.get(storageOf(kind), ref.namespace, ref.name) as KubeObject | undefined;
  }

  list(resource: Resource, namespace: string | undefined): ListResult {
    const items = this.#store.list(storageOf(this.kind(resource)), namespace) as unknown as KubeObject[];
    return { items, resourceVersion: String(this.#store.version) };
  }

  write(
    by: string,
    verb: Shown['verb'],
    ref: ObjectRef,
    body: object,
    options: { readonly fieldManager: string; readonly force?: boolean | undefined },
  ): KubeObject {
    const kind = this.kind(ref);
    const { namespace, name } = ref;
    const before = this.get(ref);
    const mode = {
      fieldManager: options.fieldManager,
      dryRun: false,
      force: options.force === true,
      validation: 'Ignore',
    } as const;
    const target = { kind, namespace, name, subresource: undefined };
    const writes = this.#writes;
    let after: KubeObject | undefined;
    if (verb === 'create') after = writes.create(kind, namespace, body as Stored, mode) as KubeObject;
    else if (verb === 'replace') after = writes.update(target, body as Stored, mode) as KubeObject;
    else if (verb === 'delete') writes.delete(target, body as Record<string, unknown>, false);
    else after = writes.patch(target, verb, body, mode) as KubeObject;
    const sentVersion = (body as Partial<KubeObject>).metadata?.resourceVersion;
    this.#shown({ by, verb, before, after, sentVersion });
    return after ?? (before as KubeObject);
  }

  kind({ apiVersion, kind }: Pick<ObjectRef, 'apiVersion' | 'kind'>): Kind {
    const id = `${apiVersion}/${kind}`;
    const known = this.#kinds.get(id);
    if (known) return known;
    const [version = '', group = ''] = apiVersion.split('/').reverse();
    const found = this.#registry
      .all()
      .find((one) => one.kind === kind && one.group === group && one.version === version);
    if (!found) throw new TypeError(`no kind ${id}`);
    this.#kinds.set(id, found);
    return found;
  }

  #put(object: Stored): void {
    const mode = { fieldManager: 'model', dryRun: false, force: true, validation: 'Ignore' } as const;
    this.#writes.create(this.kind(object), object.metadata.namespace, object, mode);
  }
}

type BeforeCall = (verb: Shown['verb'], ref: ObjectRef) => Promise<CallFault | undefined>;

class Connection implements Kube {
  readonly #by: string;
  readonly #before: BeforeCall;
  readonly #cluster: ModelCluster;

  constructor(by: string, before: BeforeCall, cluster: ModelCluster) {
    this.#by = by;
    this.#before = before;
    this.#cluster = cluster;
  }

  async get<T extends KubeObject>(ref: ObjectRef): Promise<T | undefined> {
    return this.#cluster.get(ref) as T | undefined;
  }

  async list<T extends KubeObject>(
    resource: Resource,
    selection: { namespace?: string | undefined },
  ): Promise<ListResult<T>> {
    return this.#cluster.list(resource, selection.namespace) as ListResult<T>;
  }

  watch<T extends KubeObject>(): AsyncIterable<WatchEvent<T>> {
    throw new TypeError('the model looks by itself');
  }

  create<T extends KubeObject>(object: T, options: WriteOptions): Promise<T> {
    return this.#call('create', refOf(object), object, options);
  }

  apply<T extends KubeObject>(object: KubeObject, options: ApplyOptions): Promise<T> {
    return this.#call('apply', refOf(object), object, options);
  }

  replace<T extends KubeObject>(object: T, options: WriteOptions): Promise<T> {
    return this.#call('replace', refOf(object), object, options);
  }

  merge<T extends KubeObject>(ref: ObjectRef, patch: object, options: WriteOptions): Promise<T> {
    return this.#call('merge', ref, patch, options);
  }

  async delete(ref: ObjectRef, preconditions: object): Promise<boolean> {
    await this.#call('delete', ref, preconditions, { fieldManager: '' });
    return true;
  }

  accepts(): Promise<never> {
    throw new TypeError('the model has no tokens');
  }

  apiAudiences(): Promise<never> {
    throw new TypeError('the model has no tokens');
  }

  token(): Promise<never> {
    throw new TypeError('the model has no tokens');
  }

  raw(): Promise<never> {
    throw new TypeError('the model serves nothing else');
  }

  post(): Promise<never> {
    throw new TypeError('the model serves nothing else');
  }

  close(): void {}

  async #call<T extends KubeObject>(
    verb: Shown['verb'],
    ref: ObjectRef,
    body: object,
    options: { readonly fieldManager: string; readonly force?: boolean | undefined },
  ): Promise<T> {
    const called = { verb, object: keyOf(ref) };
    const fault = await this.#before(verb, ref);
    if (fault === 'refused') throw errorFromSocket(called, new Error('ECONNREFUSED'));
    if (fault === 'conflict')
      throw errorFromStatus(called, 409, { reason: 'Conflict', message: 'modified' }, undefined);
    let answer: KubeObject;
    try {
      answer = this.#cluster.write(this.#by, verb, ref, body, options);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      throw errorFromStatus(called, error.status, error.body(), undefined);
    }
    if (fault === 'lost') throw errorFromSocket(called, new Error('ECONNRESET'));
    return answer as T;
  }
}

/** What a gateway reads of an object, without versions and bookkeeping. */
export function contentOf(object: KubeObject | undefined): unknown {
  if (!object) return undefined;
  const { metadata, ...rest } = object;
  return { ...rest, labels: metadata.labels ?? {}, annotations: metadata.annotations ?? {} };
}

export const sameContent = (a: KubeObject | undefined, b: KubeObject | undefined): boolean =>
  isDeepStrictEqual(contentOf(a), contentOf(b));

const named = ({ apiVersion, kind }: Resource) => ({ apiVersion, kind });

export const secretRef = (namespace: string, name: string): ObjectRef => ({
  ...named(RESOURCES.secrets),
  namespace,
  name,
});
