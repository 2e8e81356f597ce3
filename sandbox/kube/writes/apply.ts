import { isFields, type JsonFields, type Stored } from '../objects/object.ts';
import type { CelShape } from '../objects/shape.ts';
import { ApiError, type Cause } from '../objects/status.ts';
import { type FieldOwner, owned, ownersOf, sameWriter, type Writer, withOwners, without } from './field-managers.ts';
import { claimedBy, compare, elementsOf, type FieldSet, isWithin, itemKey, printPath } from './field-set.ts';

/**
 * Server-side apply: merges `config` into `live`, and drops fields that the manager applied before and nobody else
 * owns. Throws a 409 that lists the fields owned by others, unless forced.
 */
export function applyTo(
  live: Stored,
  config: Stored,
  shape: CelShape,
  writer: Writer,
  options: { readonly force: boolean; readonly time: string },
): Stored {
  const owners = ownersOf(live);
  const own = owners.find((owner) => sameWriter(owner, writer));
  const others = owners.filter((owner) => owner !== own);
  const claimed = claimedBy(config, shape);
  const merged = merge(live, config, shape) as Stored;
  const dropped = [...(own?.set ?? [])].filter((path) => !claimed.has(path) && !owned(path, others));
  const next = prune(merged, dropped, claimed, shape);

  const { changed, removed } = compare(live, next, shape);
  const lost = others.map((owner) => ({ owner, fields: [...owner.set].filter((path) => changed.has(path)) }));
  const conflicts = lost.filter(({ fields }) => fields.length > 0);
  if (conflicts.length > 0 && !options.force) throw conflictOf(conflicts);

  const unchanged = own !== undefined && sameSet(own.set, claimed) && changed.size === 0 && removed.size === 0;
  const mine: FieldOwner = { ...writer, set: claimed, time: unchanged ? own.time : options.time };
  const gone = new Set([...changed, ...removed]);
  const kept = others.map((owner) => ({ ...owner, set: without(owner.set, options.force ? gone : removed) }));
  return withOwners(next, [mine, ...kept]);
}

function sameSet(a: FieldSet, b: FieldSet): boolean {
  return a.size === b.size && [...a].every((path) => b.has(path));
}

function merge(live: unknown, config: unknown, shape: CelShape): unknown {
  if (isFields(config) && isFields(live) && shape.merge !== 'atomic') {
    const result: JsonFields = { ...live };
    for (const [name, value] of Object.entries(config)) result[name] = merge(live[name], value, shape.field(name));
    return result;
  }
  if (Array.isArray(config) && Array.isArray(live)) {
    if (shape.merge === 'set') {
      return [...live, ...config.filter((item) => !live.includes(item))];
    }
    if (Array.isArray(shape.merge)) {
      const keys = shape.merge;
      const wanted = new Map(config.map((item) => [itemKey(item, keys), item]));
      const kept = live.map((item) => {
        const key = itemKey(item, keys);
        const mine = wanted.get(key);
        wanted.delete(key);
        return mine === undefined ? item : merge(item, mine, shape.item);
      });
      return [...kept, ...wanted.values()];
    }
  }
  return config;
}

/** Removes the dropped paths, containers before their content; a container that becomes empty is removed too. */
function prune(object: Stored, dropped: readonly string[], claimed: FieldSet, shape: CelShape): Stored {
  if (dropped.length === 0) return object;
  const result = structuredClone(object);
  for (const path of [...dropped].sort()) {
    if ([...claimed].some((other) => isWithin(other, path))) continue;
    removeAt(result, elementsOf(path), shape);
  }
  return result;
}

const isEmpty = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0;

function removeAt(value: unknown, elements: readonly string[], shape: CelShape): void {
  const [first = '', ...rest] = elements;
  const name = first.slice(2);
  if (first.startsWith('f:')) {
    if (!isFields(value)) return;
    if (rest.length > 0) removeAt(value[name], rest, shape.field(name));
    if (rest.length === 0 || isEmpty(value[name])) delete value[name];
    return;
  }
  if (!Array.isArray(value)) return;
  const keys = Array.isArray(shape.merge) ? shape.merge : [];
  const index = value.findIndex((item) =>
    first.startsWith('v:') ? JSON.stringify(item) === name : itemKey(item, keys) === first,
  );
  if (index < 0) return;
  if (rest.length === 0) value.splice(index, 1);
  else removeAt(value[index], rest, shape.item);
}

function conflictOf(conflicts: readonly { owner: FieldOwner; fields: readonly string[] }[]): ApiError {
  const causes = conflicts.flatMap(({ owner, fields }) =>
    fields.map(
      (path): Cause => ({
        reason: 'FieldManagerConflict',
        message: `conflict with ${title(owner)}`,
        field: printPath(path),
      }),
    ),
  );
  const [only] = causes;
  const said =
    causes.length === 1 && only
      ? `Apply failed with 1 conflict: ${only.message}: ${only.field}`
      : `Apply failed with ${causes.length} conflicts: ${conflicts
          .map(
            ({ owner, fields }) =>
              `conflicts with ${title(owner)}:\n${fields.map((path) => `- ${printPath(path)}`).join('\n')}`,
          )
          .join('\n')}`;
  return new ApiError(409, 'Conflict', said, { causes });
}

function title(owner: FieldOwner): string {
  const sub = owner.subresource ? ` with subresource "${owner.subresource}"` : '';
  return `"${owner.manager}"${sub}${owner.operation === 'Apply' ? '' : ` using ${owner.apiVersion}`}`;
}
