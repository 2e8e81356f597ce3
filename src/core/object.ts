/** Kubernetes objects as plain values; nothing here knows how they travel. */
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

export function refOf(object: KubeObject): ObjectRef {
  const { name, namespace } = object.metadata;
  return { apiVersion: object.apiVersion, kind: object.kind, namespace, name };
}

/** `Secret emissary/istio-ca`: how messages name an object. */
export function describe(ref: ObjectRef): string {
  return `${ref.kind} ${ref.namespace === undefined ? '' : `${ref.namespace}/`}${ref.name}`;
}

/** Joined, not a template, which V8 keeps in pieces of thrice the size: a dozen of each object's are held. */
export const keyOf = (ref: ObjectRef): string => [ref.apiVersion, ref.kind, ref.namespace ?? '', ref.name].join('|');

/** The Server-Side-Apply field manager of everything that we write. */
export const FIELD_MANAGER = 'meshcert';
/** Of the one field `spec.tls` that we set on Mappings. */
export const MAPPING_FIELD_MANAGER = 'meshcert-mappings';
/** On each object that we own: `<namespace>.<name>` of its MeshCertificate. */
export const OWNER_LABEL = 'meshcert.dev/owner';
export const MANAGED_BY_LABEL = 'app.kubernetes.io/managed-by';
/** On each Secret that we wrote: its own uid; see `provesOrigin`. */
export const UID_ANNOTATION = 'meshcert.dev/uid';
/** On a MeshCertificate: any new value asks for a new certificate now. */
export const RENEW_ANNOTATION = 'meshcert.dev/renew';

/** Without the list of who manages which field: half of many an object, and of use only to who writes it. */
export function withoutManagers<T extends KubeObject>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}
