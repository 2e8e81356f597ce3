import type { ObjectRef } from '../core/object.ts';
import type { Resource, Selection } from './api.ts';

/** Path of a collection; without a namespace, of all namespaces. */
export function collectionPath(resource: Resource, namespace: string | undefined): string {
  const root = resource.apiVersion.includes('/') ? `/apis/${resource.apiVersion}` : `/api/${resource.apiVersion}`;
  const place = resource.namespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return `${root}${place}/${resource.plural}`;
}

export function objectPath(
  resource: Resource,
  ref: Pick<ObjectRef, 'name' | 'namespace'>,
  subresource?: string,
): string {
  const tail = subresource === undefined ? '' : `/${subresource}`;
  return `${collectionPath(resource, ref.namespace)}/${encodeURIComponent(ref.name)}${tail}`;
}

/** `?a=b&c=d` of the defined parameters, or nothing. */
export function queryOf(parameters: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) query.set(name, String(value));
  const text = query.toString();
  return text === '' ? '' : `?${text}`;
}

export function selectors({ labelSelector, fieldSelector }: Selection) {
  return { labelSelector, fieldSelector };
}

/** Selects one object by its name: a Role with `resourceNames` permits listing and watching it. */
export function onlyNamed(name: string, namespace: string | undefined): Selection {
  return { namespace, fieldSelector: `metadata.name=${name}` };
}
