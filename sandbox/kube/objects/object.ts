import type { ManagedFields } from '../../../src/objects/objects.ts';

export type JsonFields = Record<string, unknown>;

export interface Meta extends JsonFields {
  name: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  finalizers?: string[];
  managedFields?: StoredManagedFields[];
}

export interface StoredManagedFields extends ManagedFields {
  readonly fieldsType: 'FieldsV1';
  readonly time: string;
}

/** An object as the store holds it. What is stored is never changed in place. */
export interface Stored extends JsonFields {
  apiVersion: string;
  kind: string;
  metadata: Meta;
}

export function isFields(value: unknown): value is JsonFields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export const fieldsIn = (value: unknown): JsonFields => (isFields(value) ? value : {});

/** Follows plain field names; undefined if the path ends early. */
export function valueAt(object: unknown, ...path: readonly string[]): unknown {
  let value = object;
  for (const name of path) {
    if (!isFields(value)) return undefined;
    value = value[name];
  }
  return value;
}
