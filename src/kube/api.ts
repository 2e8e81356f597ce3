import type { KubeObject, ObjectRef, Resource } from '../objects/objects.ts';

export interface Selection {
  /** Absent: all namespaces. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
}

export interface WatchSelection extends Selection {
  /** From a list or an earlier event; undefined: begin with the state. */
  readonly resourceVersion: string | undefined;
  /** The server ends the watch after this long. */
  readonly timeoutSeconds?: number | undefined;
  /** Called once the server has accepted the watch, which may be long before the first event. */
  readonly opened?: (() => void) | undefined;
}

export interface WriteOptions {
  readonly fieldManager: string;
  readonly dryRun?: boolean | undefined;
}

export interface ApplyOptions extends WriteOptions {
  /** Take fields over from other managers; only for fields that we own by contract. */
  readonly force?: boolean | undefined;
  readonly subresource?: 'status' | undefined;
}

export interface WatchEvent<T extends KubeObject = KubeObject> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: T;
}

/** Whether all objects that existed when the watch began have been sent. */
export const endsState = ({ type, object }: WatchEvent): boolean =>
  type === 'BOOKMARK' && object.metadata.annotations?.[END_OF_STATE] === 'true';

export const END_OF_STATE = 'k8s.io/initial-events-end';

export interface ListResult<T extends KubeObject = KubeObject> {
  readonly items: readonly T[];
  readonly resourceVersion: string;
}

/**
 * The Kubernetes API, limited to what we use. Every call throws KubeError; a missing object is `undefined` from `get`
 * and `false` from `delete`. Writes are single attempts: the caller decides on retries.
 */
export interface Kube {
  get<T extends KubeObject = KubeObject>(ref: ObjectRef, signal?: AbortSignal): Promise<T | undefined>;
  list<T extends KubeObject = KubeObject>(
    resource: Resource,
    selection: Selection,
    signal?: AbortSignal,
  ): Promise<ListResult<T>>;
  /**
   * Ends when the server closes it; throws KubeError with status 410 when `resourceVersion` is too old. Without a version
   * the state comes first: an ADDED event for each object, and then a bookmark for which `endsState` is true. Where the
   * server cannot send it (before Kubernetes 1.32), it is listed.
   */
  watch<T extends KubeObject = KubeObject>(
    resource: Resource,
    selection: WatchSelection,
    signal?: AbortSignal,
  ): AsyncIterable<WatchEvent<T>>;
  create<T extends KubeObject = KubeObject>(object: T, options: WriteOptions, signal?: AbortSignal): Promise<T>;
  /** Server-side apply; a `metadata.resourceVersion` in the object makes it conditional. */
  apply<T extends KubeObject = KubeObject>(object: KubeObject, options: ApplyOptions, signal?: AbortSignal): Promise<T>;
  /** PUT, always conditional on `metadata.resourceVersion`. */
  replace<T extends KubeObject = KubeObject>(object: T, options: WriteOptions, signal?: AbortSignal): Promise<T>;
  /** JSON merge patch; for annotations on objects that are not ours (`meshcert renew`). */
  merge<T extends KubeObject = KubeObject>(
    ref: ObjectRef,
    patch: object,
    options: WriteOptions,
    signal?: AbortSignal,
  ): Promise<T>;
  delete(
    ref: ObjectRef,
    preconditions: { uid?: string; resourceVersion?: string },
    signal?: AbortSignal,
  ): Promise<boolean>;
  /** TokenRequest for a ServiceAccount. */
  token(
    serviceAccount: { name: string; namespace: string },
    audience: string,
    expirationSeconds: number,
    signal?: AbortSignal,
  ): Promise<{ token: string; expiresAt: number }>;
  /**
   * Whether the API server accepts this bearer token as one for itself; the token is the caller's only proof. False
   * says nothing of a token's audience: an account that is being deleted, or not yet known, is refused as well.
   */
  accepts(token: string, signal?: AbortSignal): Promise<boolean>;
  /**
   * The audiences of the API server itself, as it answers a TokenRequest without audiences for this account. Without an
   * account: those of the ServiceAccount token that this connection uses; undefined if it uses none.
   */
  apiAudiences(
    account: { name: string; namespace: string } | undefined,
    signal?: AbortSignal,
  ): Promise<readonly string[] | undefined>;
  /** Any other GET below the server's root, as JSON: discovery, version, access reviews are POSTed by `post`. */
  raw(path: string, signal?: AbortSignal): Promise<unknown>;
  post<T extends KubeObject = KubeObject>(resource: Resource, object: KubeObject, signal?: AbortSignal): Promise<T>;
  close(): void;
}
