import { CONSENT_ANNOTATION, consents } from '../core/consent.ts';
import type { TokenRequest } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import { acceptToken } from '../mesh/input/token.ts';
import type { Kube } from './api.ts';
import { KubeError } from './transport/error.ts';

type AccountRef = NonNullable<TokenRequest['serviceAccount']>;

/** The shortest lifetime that the API server grants. */
const TOKEN_SECONDS = 600;

/** A ServiceAccount of another namespace than the MeshCertificate's must consent to its use. */
export async function requireConsent(
  kube: Kube,
  account: AccountRef,
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

/** A new token of a ServiceAccount. Where the API server refuses, the KubeError is thrown: who asks knows the next step. */
export async function mintToken(
  kube: Kube,
  account: AccountRef,
  audience: string,
  signal: AbortSignal,
): Promise<string> {
  const title = `ServiceAccount ${account.namespace}/${account.name}`;
  try {
    const { token } = await kube.token(account, audience, TOKEN_SECONDS, signal);
    return acceptToken(`the token minted for ${title}`, token, TOKEN_SECONDS * 1000);
  } catch (cause) {
    if (!(cause instanceof KubeError) || cause.status !== 404) throw cause;
    throw new MeshError('ERR_MESH_TOKEN', `${title} does not exist; create it or name another`, { cause });
  }
}
