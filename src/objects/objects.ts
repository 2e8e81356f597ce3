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

/** One kind of object, by the names that the API's paths use. */
export interface Resource {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

/** Finds the kind of an object, or of what a reference names, in a list. */
export const isKindOf =
  ({ apiVersion, kind }: Pick<ObjectRef, 'apiVersion' | 'kind'>) =>
  (resource: Resource): boolean =>
    resource.apiVersion === apiVersion && resource.kind === kind;

export function refOf(object: KubeObject): ObjectRef {
  const { name, namespace } = object.metadata;
  return { apiVersion: object.apiVersion, kind: object.kind, namespace, name };
}

/**
 * Metadata of a write that succeeds only if this object still exists and is unchanged. With the version alone, an apply
 * to a deleted object creates it again.
 */
export function preconditionOf({ metadata: { uid, resourceVersion } }: KubeObject): Precondition {
  return { ...(uid && { uid }), ...(resourceVersion && { resourceVersion }) };
}

export type Precondition = Pick<KubeObject['metadata'], 'uid' | 'resourceVersion'>;

/** `Secret edge/mesh-ca`: how messages name an object. */
export function describe(ref: ObjectRef): string {
  return `${ref.kind} ${ref.namespace === undefined ? '' : `${ref.namespace}/`}${ref.name}`;
}

/**
 * Joined, not a template string: V8 stores that in pieces of three times the size, and a dozen keys of each object are
 * held.
 */
export const keyOf = (ref: ObjectRef): string => [ref.apiVersion, ref.kind, ref.namespace ?? '', ref.name].join('|');

/** The server-side apply field manager of everything that we write. */
export const FIELD_MANAGER = 'meshcert';
/** On each object that we own: `<namespace>.<name>` of its MeshCertificate. */
export const OWNER_LABEL = 'meshcert.dev/owner';
/** On each Role and binding that we write: `<namespace>.<account>` of the agent whose rights they are. */
export const AGENT_LABEL = 'meshcert.dev/agent';
export const MANAGED_BY_LABEL = 'app.kubernetes.io/managed-by';
/** On each Secret that we wrote: its own uid; see `provesOrigin`. */
export const UID_ANNOTATION = 'meshcert.dev/uid';
/** On a MeshCertificate: any new value requests a new certificate now. */
export const RENEW_ANNOTATION = 'meshcert.dev/renew';

/** Whether this manager has applied the field at this path of an object. */
export const hasApplied = ({ metadata }: KubeObject, by: string, path: readonly string[]): boolean =>
  (metadata.managedFields ?? []).some(
    ({ manager, operation, fieldsV1 }) =>
      manager === by &&
      operation === 'Apply' &&
      path.reduce<unknown>((below, key) => fields(below)[`f:${key}`], fieldsV1) !== undefined,
  );

/** Without `managedFields`: half the size of many objects, and needed only for writes. */
export function withoutManagers<T extends KubeObject>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}
