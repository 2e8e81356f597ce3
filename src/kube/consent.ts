import { CONSENT_ANNOTATION, consents } from '../core/consent.ts';
import type { TokenRequest } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import type { Kube } from './api.ts';

/** A ServiceAccount of another namespace than the MeshCertificate's must consent to its use. */
export async function requireConsent(
  kube: Kube,
  account: NonNullable<TokenRequest['serviceAccount']>,
  namespace: string,
  signal: AbortSignal,
): Promise<void> {
  if (account.namespace === namespace) return;
  const name = `${account.namespace}/${account.name}`;
  const found = await kube.get({ apiVersion: 'v1', kind: 'ServiceAccount', ...account }, signal).catch((cause) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('ERR_MESH_TOKEN', `cannot read whether ServiceAccount ${name} consents: ${why}`, { cause });
  });
  if (found && consents(found, namespace)) return;
  throw new MeshError(
    'ERR_NO_CONSENT',
    `ServiceAccount ${name} does not exist, or does not allow MeshCertificates of namespace ${namespace} to use it; its owner can run: kubectl annotate serviceaccount ${account.name} -n ${account.namespace} ${CONSENT_ANNOTATION}=${namespace}`,
    { retry: 'never' },
  );
}
