import type { KubeObject } from '../objects/objects.ts';
import type { Problem } from './problem.ts';

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

/** Why MeshCertificates of `namespace` may not use this object, or undefined. */
export function consentRefusal(object: KubeObject, namespace: string): Problem | undefined {
  if (consents(object, namespace)) return undefined;
  const message = `it is in another namespace than the MeshCertificate and does not consent; its owner can annotate it: ${CONSENT_ANNOTATION}=${namespace}`;
  return { code: 'ERR_TARGET_NO_CONSENT', message };
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
