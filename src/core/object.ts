import type { KubeObject, ObjectRef } from '../mesh/kube-object.ts';

/** One kind of object, by the names that the API's paths use. */
export interface Resource {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

export type { KubeObject, ManagedFields, ObjectMeta, ObjectRef } from '../mesh/kube-object.ts';

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

/** Without `managedFields`: half the size of many objects, and needed only for writes. */
export function withoutManagers<T extends KubeObject>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}
