import type { IncomingHttpHeaders } from 'node:http';
import { parse } from 'yaml';
import type { Cluster } from './cluster.ts';
import { listOf, page, selection } from './lists.ts';
import { apiVersionOf, type Kind, storageOf } from './objects/kinds.ts';
import { fieldsIn, isFields, type JsonFields, type Stored } from './objects/object.ts';
import { ApiError, badRequest, invalid, methodNotAllowed, noSuchPath, notFound } from './objects/status.ts';
import { decodeProtobuf } from './protobuf.ts';
import { allowed, refusal } from './rbac.ts';
import { type Asked, writeMode } from './schema/request.ts';
import { table } from './table.ts';
import type { User } from './tokens.ts';
import type { WatchRequest } from './watches.ts';
import type { PatchType, WriteTarget } from './writes/writes.ts';

export interface HandlerCall {
  readonly asked: Asked;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly user: User;
}

export type HandlerResponse = { readonly status: number; readonly body: JsonFields } | { readonly watch: WatchRequest };

/** Handles an authenticated request for a resource. Throws ApiError. */
export function handle(cluster: Cluster, call: HandlerCall): HandlerResponse {
  const { asked, user } = call;
  authorize(cluster, user, asked.verb, asked);
  const kind = cluster.registry.find(asked.group, asked.version, asked.plural);
  if (!kind || (!kind.namespaced && asked.namespace !== undefined)) throw noSuchPath();
  if (asked.subresource !== undefined) return subresource(cluster, call, kind, asked.subresource);
  if (kind.virtual) return { status: 201, body: review(cluster, kind, bodyOf(call, kind), user) };
  return main(cluster, call, kind);
}

function authorize(cluster: Cluster, user: User, verb: string, asked: Asked): void {
  if (!cluster.rbac) return;
  const attributes = { ...asked, verb };
  if (!allowed(cluster.store, user, attributes)) {
    const { name, plural, group } = asked;
    throw new ApiError(403, 'Forbidden', refusal(user, attributes), {
      ...(name ? { name } : {}),
      ...(group ? { group } : {}),
      kind: plural,
    });
  }
}

function main(cluster: Cluster, call: HandlerCall, kind: Kind): HandlerResponse {
  const { asked } = call;
  const { store, writes } = cluster;
  switch (asked.verb) {
    case 'get': {
      const found = store.get(storageOf(kind), asked.namespace, asked.name ?? '');
      if (!found) throw notFound(kind, asked.name ?? '');
      return shown(cluster, call, kind, 200, found);
    }
    case 'list': {
      const found = page(store, kind, asked);
      const items = found.items.map((object) => served(kind, object));
      const body = wantsTable(call)
        ? table(kind, items, cluster.clock.now(), String(found.metadata.resourceVersion))
        : listOf(kind, { ...found, items });
      return { status: 200, body };
    }
    case 'watch':
      return { watch: watchRequest(cluster, call, kind) };
    case 'create': {
      if (asked.name !== undefined || (kind.namespaced && asked.namespace === undefined)) throw methodNotAllowed();
      const body = bodyOf(call, kind);
      const made = writes.create(kind, asked.namespace, body, mode(call));
      return shown(cluster, call, kind, 201, made);
    }
    case 'update':
      return shown(cluster, call, kind, 200, writes.update(targetOf(asked, kind), bodyOf(call, kind), mode(call)));
    case 'patch':
      return patch(cluster, call, kind);
    case 'delete':
      return remove(cluster, call, kind);
    case 'deletecollection': {
      const doomed = store.list(storageOf(kind), asked.namespace).filter(selection(kind, asked));
      for (const { metadata } of doomed) {
        writes.delete(
          { ...targetOf(asked, kind), namespace: metadata.namespace, name: metadata.name },
          {},
          mode(call).dryRun,
        );
      }
      return {
        status: 200,
        body: listOf(kind, { items: doomed, metadata: { resourceVersion: String(store.version) } }),
      };
    }
  }
}

function patch(cluster: Cluster, call: HandlerCall, kind: Kind): HandlerResponse {
  const target = targetOf(call.asked, kind);
  const type = patchTypeOf(call);
  if (type === 'apply' && !call.asked.query.get('fieldManager')) {
    throw new ApiError(
      400,
      'BadRequest',
      'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    );
  }
  const isNew = !cluster.store.get(storageOf(kind), target.namespace, target.name);
  if (type === 'apply' && isNew) authorize(cluster, call.user, 'create', call.asked);
  const result = cluster.writes.patch(target, type, type === 'json' ? decode(call) : bodyOf(call), mode(call));
  return shown(cluster, call, kind, isNew ? 201 : 200, result);
}

function remove(cluster: Cluster, call: HandlerCall, kind: Kind): HandlerResponse {
  const target = targetOf(call.asked, kind);
  const options = call.body.length === 0 ? {} : fieldsIn(decode(call));
  const dryRun = mode(call).dryRun || Array.isArray(options.dryRun);
  if (kind.kind === 'Namespace') emptyNamespace(cluster, target.name, dryRun);
  const { last, gone } = cluster.writes.delete(target, fieldsIn(options.preconditions), dryRun);
  if (!gone) return shown(cluster, call, kind, 200, last);
  const { name, uid } = last.metadata;
  const details = { name, ...(kind.group === '' ? {} : { group: kind.group }), kind: kind.plural, uid };
  return { status: 200, body: { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details } };
}

/** Does the work of the namespace controller, immediately. */
function emptyNamespace(cluster: Cluster, namespace: string, dryRun: boolean): void {
  if (dryRun) return;
  for (const kind of cluster.registry.all().filter((one) => one.namespaced)) {
    for (const object of cluster.store.list(storageOf(kind), namespace)) cluster.store.remove(storageOf(kind), object);
  }
}

function subresource(cluster: Cluster, call: HandlerCall, kind: Kind, name: string): HandlerResponse {
  const { asked } = call;
  const target = targetOf(asked, kind);
  if (kind.kind === 'ServiceAccount' && name === 'token' && asked.verb === 'create') {
    const account = cluster.store.get(storageOf(kind), target.namespace, target.name);
    if (!account) throw notFound(kind, target.name);
    return { status: 201, body: cluster.tokens.request(account, bodyOf(call)) };
  }
  if (name !== 'status' || !kind.status) throw noSuchPath();
  if (asked.verb === 'get') return main(cluster, { ...call, asked: { ...asked, subresource: undefined } }, kind);
  if (asked.verb === 'update') {
    return shown(cluster, call, kind, 200, cluster.writes.update(target, bodyOf(call, kind), mode(call)));
  }
  if (asked.verb === 'patch') return patch(cluster, call, kind);
  throw methodNotAllowed();
}

function review(cluster: Cluster, kind: Kind, body: Stored, user: User): JsonFields {
  if (kind.kind === 'TokenReview') return cluster.tokens.review(body, (token) => cluster.users.get(token));
  if (kind.kind === 'SelfSubjectReview') return { ...body, metadata: {}, status: { userInfo: { ...user } } };
  const spec = fieldsIn(body.spec);
  const about = fieldsIn(spec.resourceAttributes);
  const text = (field: unknown) => (field === undefined || field === '' ? undefined : String(field));
  const who =
    kind.kind === 'SubjectAccessReview'
      ? { username: String(spec.user), groups: (spec.groups as string[]) ?? [] }
      : user;
  const attributes = {
    verb: String(about.verb),
    group: String(about.group ?? ''),
    plural: String(about.resource),
    subresource: text(about.subresource),
    namespace: text(about.namespace),
    name: text(about.name),
  };
  return { ...body, metadata: {}, status: { allowed: !cluster.rbac || allowed(cluster.store, who, attributes) } };
}

function watchRequest(cluster: Cluster, call: HandlerCall, kind: Kind): WatchRequest {
  const { query, namespace } = call.asked;
  const initialEvents = query.get('sendInitialEvents') === 'true';
  if (initialEvents && !cluster.watchList) throw invalid(WATCH_OPTIONS, '', [NO_WATCH_LIST]);
  return {
    kind,
    namespace,
    matches: selection(kind, call.asked),
    resourceVersion: query.get('resourceVersion') ?? '',
    initialEvents,
    bookmarks: query.get('allowWatchBookmarks') === 'true',
    timeoutSeconds: Number(query.get('timeoutSeconds') ?? 0) || 1800,
    show: (object) => (wantsTable(call) ? table(kind, [object], cluster.clock.now()) : served(kind, object)),
  };
}

const WATCH_OPTIONS = { group: 'meta.k8s.io', kind: 'ListOptions', plural: 'listoptions' };
const NO_WATCH_LIST = {
  reason: 'FieldValueForbidden',
  field: 'sendInitialEvents',
  message: 'Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled',
};

function shown(cluster: Cluster, call: HandlerCall, kind: Kind, status: number, object: Stored): HandlerResponse {
  const body = wantsTable(call) ? table(kind, [object], cluster.clock.now()) : served(kind, object);
  return { status, body };
}

/** The object in the requested version. */
const served = (kind: Kind, object: Stored): Stored => ({ ...object, apiVersion: apiVersionOf(kind), kind: kind.kind });
const wantsTable = ({ headers }: HandlerCall): boolean => (headers.accept ?? '').includes('as=Table');
const mode = ({ asked, headers }: HandlerCall) => writeMode(asked.query, headers['user-agent'] ?? '');

function targetOf(asked: Asked, kind: Kind): WriteTarget {
  if (asked.name === undefined) throw methodNotAllowed();
  return { kind, namespace: asked.namespace, name: asked.name, subresource: asked.subresource };
}

/** The body as an object; its kind comes from the path if the body has none. */
function bodyOf(call: HandlerCall, kind?: Kind): Stored {
  const object = decode(call);
  if (!isFields(object)) throw badRequest('the body of the request is not an object');
  const type = kind ? { apiVersion: apiVersionOf(kind), kind: kind.kind } : {};
  return { ...type, ...object, metadata: { ...fieldsIn(object.metadata) } } as Stored;
}

function decode({ headers, body }: HandlerCall): unknown {
  if ((headers['content-type'] ?? '').includes('protobuf')) {
    const object = decodeProtobuf(body);
    if (!object) throw unsupported();
    return object;
  }
  try {
    return parseText(body.toString());
  } catch (error) {
    throw badRequest(`the body of the request cannot be decoded: ${error instanceof Error ? error.message : error}`);
  }
}

/** JSON first: the YAML parser reads it too, but hundreds of times slower. */
function parseText(text: string): unknown {
  return /^\s*[{[]/.test(text) ? JSON.parse(text) : parse(text);
}

function patchTypeOf({ headers }: HandlerCall): PatchType {
  const type = (headers['content-type'] ?? '').split(';')[0];
  switch (type) {
    case 'application/apply-patch+yaml':
      return 'apply';
    case 'application/merge-patch+json':
      return 'merge';
    case 'application/strategic-merge-patch+json':
      return 'strategic';
    case 'application/json-patch+json':
      return 'json';
    default:
      throw unsupported();
  }
}

function unsupported(): ApiError {
  return new ApiError(
    415,
    'UnsupportedMediaType',
    'the body of the request was in an unknown format - accepted media types include: application/json, application/yaml',
  );
}
