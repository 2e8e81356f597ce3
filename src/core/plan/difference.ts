import { FIELD_MANAGER, type KubeObject, type ManagedFields } from '../object.ts';

type ObjectFields = Readonly<Record<string, unknown>>;

/** Fields that the server sets or that name the object; never compared. */
const NOT_CONTENT = new Set(['apiVersion', 'kind', 'status']);
const COMPARED_METADATA = ['labels', 'annotations', 'ownerReferences'] as const;

/**
 * Names of the fields in which `observed` is not as `wanted`, such as `data.tls.crt`: those that differ, and those
 * that our creation or an earlier apply set and `wanted` no longer has. Fields that others added are ignored. Never values:
 * they may be keys.
 */
export function differences(wanted: KubeObject, observed: KubeObject): string[] {
  const found = new Set<string>();
  const current = contentOf(observed);
  for (const [name, value] of Object.entries(contentOf(wanted))) compare(value, current[name], name, found);
  for (const entry of observed.metadata.managedFields ?? []) {
    if (isOurs(entry)) leftOver(entry.fieldsV1 ?? {}, wanted, '', found);
  }
  return [...found];
}

export const isOurs = (entry: ManagedFields): boolean =>
  entry.manager === FIELD_MANAGER && entry.subresource === undefined;

function contentOf({ metadata, ...rest }: KubeObject): ObjectFields {
  const content: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(rest)) if (!NOT_CONTENT.has(name)) content[name] = value;
  for (const name of COMPARED_METADATA) content[`metadata.${name}`] = metadata[name];
  return content;
}

function compare(wanted: unknown, observed: unknown, path: string, found: Set<string>): void {
  if (wanted === undefined) return;
  if (isFields(wanted)) {
    // The API server drops empty maps.
    const other = isFields(observed) ? observed : {};
    for (const [name, value] of Object.entries(wanted)) compare(value, other[name], `${path}.${name}`, found);
  } else if (!equal(wanted, observed)) found.add(path);
}

/** Lists are compared as a whole; unknown fields inside them count. */
function equal(a: unknown, b: unknown): boolean {
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, at) => equal(item, b[at]));
  if (!isFields(a)) return a === b;
  if (!isFields(b)) return false;
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].every((name) => equal(a[name], b[name]));
}

/** Walks a `fieldsV1` set; list items (`k:`, `v:`) are skipped, since lists are compared as a whole. */
function leftOver(set: ObjectFields, wanted: unknown, path: string, found: Set<string>): void {
  for (const [token, below] of Object.entries(set)) {
    if (!token.startsWith('f:')) continue;
    const name = token.slice(2);
    const value = isFields(wanted) ? wanted[name] : undefined;
    const here = path === '' ? name : `${path}.${name}`;
    if (value === undefined) found.add(here);
    else if (isFields(below)) leftOver(below, value, here, found);
  }
}

function isFields(value: unknown): value is ObjectFields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
