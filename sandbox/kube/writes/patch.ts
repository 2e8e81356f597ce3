import { isDeepStrictEqual } from 'node:util';
import { fieldsIn, isFields, type JsonFields } from '../objects/object.ts';
import type { CelShape } from '../objects/shape.ts';
import { ApiError, badRequest } from '../objects/status.ts';
import { itemKey } from './field-set.ts';

/** RFC 7396. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isFields(patch)) return patch;
  const result: JsonFields = { ...fieldsIn(target) };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = mergePatch(result[name], value);
  }
  return result;
}

/** The part of strategic merge that kubectl uses: keyed lists, `$patch`, `$retainKeys`, `$deleteFromPrimitiveList`. */
export function strategicPatch(target: unknown, patch: unknown, shape: CelShape): unknown {
  if (Array.isArray(patch) && Array.isArray(shape.merge) && Array.isArray(target)) {
    const keys = shape.merge;
    let items = [...target];
    for (const change of patch) {
      const index = items.findIndex((item) => itemKey(item, keys) === itemKey(change, keys));
      if (fieldsIn(change).$patch === 'delete') items = items.filter((_, at) => at !== index);
      else if (index < 0) items.push(change);
      else items[index] = strategicPatch(items[index], change, shape.item);
    }
    return items;
  }
  if (!isFields(patch)) return patch;
  if (patch.$patch === 'replace')
    return Object.fromEntries(Object.entries(patch).filter(([name]) => name !== '$patch'));
  const result: JsonFields = { ...fieldsIn(target) };
  for (const [name, value] of Object.entries(patch)) {
    if (name.startsWith('$')) continue;
    if (value === null) delete result[name];
    else result[name] = strategicPatch(result[name], value, shape.field(name));
  }
  return result;
}

/** RFC 6902. */
export function jsonPatch(target: unknown, operations: unknown): unknown {
  if (!Array.isArray(operations)) throw badRequest('a JSON patch is a list of operations');
  let result = structuredClone(target);
  for (const operation of operations.map(fieldsIn)) {
    const { op, path, from, value } = operation;
    if (op === 'add' || op === 'replace' || op === 'remove') result = edit(result, tokens(path), op, value);
    else if (op === 'move' || op === 'copy') {
      const moved = structuredClone(read(result, tokens(from)));
      if (op === 'move') result = edit(result, tokens(from), 'remove', undefined);
      result = edit(result, tokens(path), 'add', moved);
    } else if (op !== 'test') throw badRequest(`unexpected kind of operation: ${String(op)}`);
    else if (!isDeepStrictEqual(read(result, tokens(path)), value)) {
      throw new ApiError(422, 'Invalid', `testing value ${String(path)} failed`);
    }
  }
  return result;
}

function tokens(pointer: unknown): string[] {
  return String(pointer)
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function read(value: unknown, path: readonly string[]): unknown {
  return path.reduce((at: unknown, token) => (at as JsonFields | undefined)?.[token], value);
}

function edit(root: unknown, path: readonly string[], op: 'add' | 'replace' | 'remove', value: unknown): unknown {
  const last = path.at(-1);
  if (last === undefined) return value;
  const parent = read(root, path.slice(0, -1));
  if (Array.isArray(parent)) {
    const index = last === '-' ? parent.length : Number(last);
    if (op === 'add') parent.splice(index, 0, value);
    else if (op === 'remove') parent.splice(index, 1);
    else parent[index] = value;
  } else if (isFields(parent)) {
    if (op !== 'add' && !(last in parent)) {
      throw new ApiError(422, 'Invalid', `the server rejected our request: ${op} of a missing path /${path.join('/')}`);
    }
    if (op === 'remove') delete parent[last];
    else parent[last] = value;
  } else throw new ApiError(422, 'Invalid', `the server rejected our request: no value at /${path.join('/')}`);
  return root;
}
