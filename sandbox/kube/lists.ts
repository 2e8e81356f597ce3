import { apiVersionOf, type Kind, storageOf } from './objects/kinds.ts';
import type { JsonFields, Stored } from './objects/object.ts';
import { type FieldSelector, fieldSelector, labelSelector, type Predicate } from './objects/selectors.ts';
import { badRequest, expired } from './objects/status.ts';
import type { Store } from './objects/store.ts';
import type { Asked } from './schema/request.ts';

export interface Page {
  readonly items: readonly Stored[];
  readonly metadata: JsonFields;
}

/** A page of the objects that the request selects; `continue` holds the version and the position. */
export function page(store: Store, kind: Kind, asked: Asked): Page {
  const all = store.list(storageOf(kind), asked.namespace).filter(selection(kind, asked));
  const limit = Number(asked.query.get('limit') ?? 0);
  const token = asked.query.get('continue');
  const from = token ? decode(token) : { version: store.version, after: '' };
  if (from.version < store.oldest) {
    throw expired(
      'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.',
    );
  }
  const rest = all.filter((object) => place(object) > from.after);
  const items = limit > 0 ? rest.slice(0, limit) : rest;
  const last = items.at(-1);
  const metadata: JsonFields = { resourceVersion: String(from.version) };
  if (last && items.length < rest.length) {
    metadata.continue = encode({ version: from.version, after: place(last) });
    metadata.remainingItemCount = rest.length - items.length;
  }
  return { items, metadata };
}

export function listOf(kind: Kind, { items, metadata }: Page): JsonFields {
  return { kind: `${kind.kind}List`, apiVersion: apiVersionOf(kind), metadata, items };
}

export function selection(kind: Kind, asked: Asked): Predicate {
  const labels = labelSelector(asked.query.get('labelSelector') ?? undefined);
  const fields: FieldSelector = fieldSelector(asked.query.get('fieldSelector') ?? undefined, kind.kind);
  const inPath = asked.query.get('fieldSelector') === null ? asked.name : undefined;
  return (object) =>
    labels(object) && fields.matches(object) && (inPath === undefined || object.metadata.name === inPath);
}

const place = (object: Stored): string => `${object.metadata.namespace ?? ''}/${object.metadata.name}`;

interface Position {
  readonly version: number;
  readonly after: string;
}

const encode = (position: Position): string => Buffer.from(JSON.stringify(position)).toString('base64url');

function decode(token: string): Position {
  try {
    return JSON.parse(Buffer.from(token, 'base64url').toString());
  } catch {
    throw badRequest('continue key is not valid');
  }
}
