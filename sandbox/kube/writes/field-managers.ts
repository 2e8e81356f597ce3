import type { JsonFields, Stored, StoredManagedFields } from '../objects/object.ts';
import type { CelShape } from '../objects/shape.ts';
import { compare, type FieldSet, fromFieldsV1, isWithin, toFieldsV1 } from './field-set.ts';

/** A writer: one entry of `metadata.managedFields`. */
export interface Writer {
  readonly manager: string;
  readonly operation: 'Apply' | 'Update';
  readonly apiVersion: string;
  readonly subresource?: string;
}

export interface FieldOwner extends Writer {
  readonly set: FieldSet;
  readonly time: string;
}

export const sameWriter = (a: Writer, b: Writer): boolean =>
  a.manager === b.manager &&
  a.operation === b.operation &&
  a.apiVersion === b.apiVersion &&
  a.subresource === b.subresource;

export function ownersOf(object: Stored | undefined): FieldOwner[] {
  return (object?.metadata.managedFields ?? []).map((entry) => ({
    manager: entry.manager,
    operation: entry.operation,
    apiVersion: entry.apiVersion ?? '',
    ...(entry.subresource ? { subresource: entry.subresource } : {}),
    set: fromFieldsV1(entry.fieldsV1),
    time: entry.time,
  }));
}

/** Appliers before others, then by time, then by name. */
const order = ({ operation, time, manager }: FieldOwner): string => `${operation} ${time} ${manager}`;

export function withOwners(object: Stored, owners: readonly FieldOwner[]): Stored {
  const managedFields = owners
    .filter((owner) => owner.set.size > 0)
    .sort((a, b) => (order(a) < order(b) ? -1 : 1))
    .map(
      (owner): StoredManagedFields => ({
        manager: owner.manager,
        operation: owner.operation,
        apiVersion: owner.apiVersion,
        ...(owner.subresource ? { subresource: owner.subresource } : {}),
        time: owner.time,
        fieldsType: 'FieldsV1',
        fieldsV1: toFieldsV1(owner.set),
      }),
    );
  return { ...object, metadata: { ...object.metadata, managedFields } };
}

/**
 * After create, PUT or patch: the writer owns what it changed, and all others lose those fields and the removed ones.
 */
export function ownersAfterUpdate(
  before: Stored | undefined,
  after: Stored,
  shape: CelShape,
  writer: Writer,
  time: string,
): FieldOwner[] {
  const { changed, removed } = compare(before ?? ({} as JsonFields), after, shape);
  const owners = ownersOf(before);
  if (changed.size === 0 && removed.size === 0) return owners;
  const own = owners.find((owner) => sameWriter(owner, writer));
  const others = owners
    .filter((owner) => owner !== own)
    .map((owner) => ({ ...owner, set: without(owner.set, new Set([...changed, ...removed])) }));
  const set = without(new Set([...(own?.set ?? []), ...changed]), removed);
  return [...others, { ...writer, set, time }];
}

export function without(set: FieldSet, taken: FieldSet): FieldSet {
  return new Set([...set].filter((path) => !taken.has(path)));
}

/** Whether anyone owns the path or something below it. */
export function owned(path: string, owners: readonly FieldOwner[]): boolean {
  return owners.some((owner) => [...owner.set].some((other) => isWithin(other, path)));
}
