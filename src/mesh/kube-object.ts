/** Kubernetes objects as plain values, independent of how they are transferred. */
export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly resourceVersion?: string;
  readonly uid?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly ownerReferences?: readonly Readonly<Record<string, unknown>>[];
  readonly finalizers?: readonly string[];
  readonly managedFields?: readonly ManagedFields[];
}

export interface ManagedFields {
  readonly manager: string;
  readonly operation: 'Apply' | 'Update';
  readonly apiVersion?: string;
  readonly subresource?: string;
  /** Of the last change, RFC 3339 in whole seconds, by the server's clock. */
  readonly time?: string;
  readonly fieldsV1?: Readonly<Record<string, unknown>>;
}

export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
  readonly [field: string]: unknown;
}

/** Enough to name one object. */
export interface ObjectRef {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string | undefined;
  readonly name: string;
}

export type Fields = Readonly<Record<string, unknown>>;

/** An object's map of fields, or an empty one: user input may have any shape. */
export function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

/** The maps of fields in a list, or none. */
export const listOfFields = (value: unknown): readonly Fields[] => (Array.isArray(value) ? value.map(fields) : []);

/** Whether an object carries all of these labels, as `matchLabels` of a selector requires; no labels match anything. */
export const hasLabels = ({ metadata }: KubeObject, labels: Readonly<Record<string, unknown>>): boolean =>
  Object.entries(labels).every(([key, value]) => metadata.labels?.[key] === value);

export function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
