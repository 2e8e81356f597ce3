import type { KubeApiserver } from '../servers/kube-apiserver.ts';
import type { AuditEvent } from '../servers/kube-client.ts';

/** Not part of a publication: elections, events, tokens, and dry runs, which store nothing. */
const ASIDE = /\/leases|\/events|\/token(\?|$)|tokenreviews|dryRun/;
const WRITING = new Set(['create', 'update', 'patch', 'delete', 'deletecollection']);

/** The agents' write requests in a namespace, in order, from the API server's audit log. */
export async function agentWrites(apiserver: KubeApiserver, namespace: string): Promise<AuditEvent[]> {
  const events = await apiserver.audit();
  return events.filter(
    ({ verb, requestURI, userAgent, objectRef }) =>
      userAgent?.startsWith('meshcert/') &&
      WRITING.has(verb) &&
      objectRef?.namespace === namespace &&
      !ASIDE.test(requestURI),
  );
}

export const succeeded = ({ responseStatus }: AuditEvent): boolean => (responseStatus?.code ?? 500) < 300;

/** `secrets/istio-ca`, for messages and comparisons. */
export const nameOf = ({ objectRef }: AuditEvent): string => `${objectRef?.resource}/${objectRef?.name}`;
