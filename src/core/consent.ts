import type { KubeObject } from './object.ts';

/**
 * On a ServiceAccount or a route: the namespaces whose MeshCertificates may use it, with commas between them, or `*`.
 * Whoever may write the object gives the consent of its namespace.
 */
export const CONSENT_ANNOTATION = 'meshcert.dev/allow-from';

/**
 * Whether MeshCertificates of `namespace` may use this object: it is in the same namespace, or its annotation allows
 * it.
 */
export function consents({ metadata }: KubeObject, namespace: string): boolean {
  return metadata.namespace === namespace || consented(metadata.annotations?.[CONSENT_ANNOTATION], namespace);
}

function consented(annotation: string | undefined, namespace: string): boolean {
  const given = annotation?.split(',').map((one) => one.trim()) ?? [];
  return given.includes(namespace) || given.includes('*');
}

/** The annotation with this namespace added; unchanged if it is there already. */
export function withConsent(annotation: string | undefined, namespace: string): string {
  if (annotation === undefined || annotation.trim() === '') return namespace;
  return consented(annotation, namespace) ? annotation : `${annotation},${namespace}`;
}
