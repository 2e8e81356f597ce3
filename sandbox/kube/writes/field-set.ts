import { isDeepStrictEqual } from 'node:util';
import { isFields, type JsonFields } from '../objects/object.ts';
import type { CelShape } from '../objects/shape.ts';

/**
 * Places in an object. A path is its elements joined by NUL, each as `fieldsV1` writes it: `f:name` for a field,
 * `k:{"name":"x"}` for an item of a keyed list, `v:"x"` for an item of a set.
 */
export type FieldSet = Set<string>;

const JOIN = '\0';
export const childPath = (path: string, element: string): string => (path === '' ? element : path + JOIN + element);
export const elementsOf = (path: string): string[] => path.split(JOIN);
export const isWithin = (path: string, ancestor: string): boolean =>
  path === ancestor || path.startsWith(ancestor + JOIN);

/** Set only by the server, and owned by nobody. */
const SYSTEM = new Set(
  ['apiVersion', 'kind', 'metadata']
    .concat(
      ['name', 'namespace', 'uid', 'resourceVersion', 'generation', 'creationTimestamp', 'deletionTimestamp']
        .concat(['managedFields', 'selfLink', 'generateName', 'deletionGracePeriodSeconds'])
        .map((name) => `metadata${JOIN}f:${name}`),
    )
    .map((name) => `f:${name}`),
);

type Visit = (path: string, value: unknown, leaf: boolean) => void;

/** Calls for each path: containers before their content. */
function walk(value: unknown, shape: CelShape, path: string, visit: Visit): void {
  if (isFields(value) && shape.merge !== 'atomic') {
    const names = Object.keys(value);
    if (path !== '') visit(path, value, names.length === 0);
    for (const name of names) walk(value[name], shape.field(name), childPath(path, `f:${name}`), visit);
  } else if (Array.isArray(value) && shape.merge === 'set') {
    for (const item of value) visit(childPath(path, `v:${JSON.stringify(item)}`), item, true);
  } else if (Array.isArray(value) && Array.isArray(shape.merge)) {
    for (const item of value) {
      const place = childPath(path, itemKey(item, shape.merge));
      walk(item, shape.item, place, visit);
    }
  } else visit(path, value, true);
}

export function itemKey(item: unknown, keys: readonly string[]): string {
  const fields = isFields(item) ? item : {};
  const key = Object.fromEntries([...keys].sort().map((name) => [name, fields[name]]));
  return `k:${JSON.stringify(key)}`;
}

/** The fields that an applied configuration claims: its leaves, and the items of keyed lists. */
export function claimedBy(config: JsonFields, shape: CelShape): FieldSet {
  const set: FieldSet = new Set();
  walk(config, shape, '', (path, _value, leaf) => {
    if (!SYSTEM.has(path) && (leaf || elementsOf(path).at(-1)?.startsWith('k:'))) set.add(path);
  });
  return set;
}

export interface Difference {
  /** Added, or with another value. */
  readonly changed: FieldSet;
  readonly removed: FieldSet;
}

export function compare(before: JsonFields, after: JsonFields, shape: CelShape): Difference {
  const was = flat(before, shape);
  const is = flat(after, shape);
  const changed: FieldSet = new Set();
  for (const [path, now] of is) {
    const old = was.get(path);
    if (!old || (now.leaf && !isDeepStrictEqual(old.value, now.value))) changed.add(path);
  }
  return { changed, removed: new Set([...was.keys()].filter((path) => !is.has(path))) };
}

function flat(object: JsonFields, shape: CelShape): Map<string, { value: unknown; leaf: boolean }> {
  const all = new Map<string, { value: unknown; leaf: boolean }>();
  walk(object, shape, '', (path, value, leaf) => {
    if (!SYSTEM.has(path)) all.set(path, { value, leaf });
  });
  return all;
}

export function toFieldsV1(set: FieldSet): JsonFields {
  const root: JsonFields = {};
  const nodes = [...set].sort().map((path) => elementsOf(path).reduce(descend, root));
  for (const node of nodes) if (Object.keys(node).length > 0) node['.'] = {};
  return root;
}

function descend(node: JsonFields, element: string): JsonFields {
  const next = isFields(node[element]) ? node[element] : {};
  node[element] = next;
  return next;
}

export function fromFieldsV1(fields: unknown, path = '', set: FieldSet = new Set()): FieldSet {
  if (!isFields(fields)) return set;
  const names = Object.keys(fields);
  if (names.length === 0 && path !== '') set.add(path);
  for (const name of names) {
    if (name === '.') set.add(path);
    else fromFieldsV1(fields[name], childPath(path, name), set);
  }
  return set;
}

/** `.data.tls\.crt`, `.spec.containers[name="a"].image`: the format of fields in conflicts. */
export function printPath(path: string): string {
  return elementsOf(path)
    .map((element) => {
      const rest = element.slice(2);
      if (element.startsWith('f:')) return `.${rest}`;
      if (element.startsWith('v:')) return `[=${rest}]`;
      const keys = Object.entries(JSON.parse(rest) as JsonFields);
      return `[${keys.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(',')}]`;
    })
    .join('');
}
