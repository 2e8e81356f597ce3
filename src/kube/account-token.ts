import { CONSENT_ANNOTATION, consents } from '../core/consent.ts';
import type { TokenRequest } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import { acceptToken, readClaims } from '../mesh/input.ts';
import type { Kube } from './api.ts';
import { KubeError } from './transport/error.ts';

type AccountRef = NonNullable<TokenRequest['serviceAccount']>;

/** The shortest lifetime that the API server grants. */
const TOKEN_SECONDS = 600;

/**
 * A ServiceAccount that is being deleted may not be used, and one of another namespace than the MeshCertificate's must
 * consent. In its own namespace an older Role may not permit the reading; `requireHarmless` does not depend on it.
 */
export async function requireUsable(
  kube: Kube,
  account: AccountRef,
  namespace: string,
  signal: AbortSignal,
): Promise<void> {
  const isOwn = account.namespace === namespace;
  const name = `${account.namespace}/${account.name}`;
  const found = await kube.get({ apiVersion: 'v1', kind: 'ServiceAccount', ...account }, signal).catch((cause) => {
    if (isOwn && cause instanceof KubeError && cause.status === 403) return undefined;
    const why = cause instanceof Error ? cause.message : String(cause);
    const what = isOwn ? 'is being deleted' : 'consents';
    throw new MeshError('ERR_MESH_TOKEN', `cannot read whether ServiceAccount ${name} ${what}: ${why}`, { cause });
  });
  if (found?.metadata.deletionTimestamp !== undefined) {
    throw new MeshError(
      'ERR_MESH_TOKEN',
      `ServiceAccount ${name} is being deleted, so no token is made for it; name another, or remove its finalizers and create it again`,
    );
  }
  if (isOwn || (found && consents(found, namespace))) return;
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

/**
 * Throws unless it is certain that this token opens nothing at the Kubernetes API: it names its audiences, none of them
 * is the API server's, and the API server does not accept it. A refusal alone proves nothing, since an account that is
 * being deleted or not yet known is refused for any audience. `source`: `the token in /run/token`; `account`: whose
 * token it is, if the agent minted it.
 */
export async function requireHarmless(
  kube: Kube,
  source: string,
  token: string,
  account: AccountRef | undefined,
  signal: AbortSignal,
): Promise<void> {
  const claims = readClaims(token);
  const audience = claims?.audiences[0];
  if (audience === undefined) throw unproven(source, 'it names no audience', audience);
  const [ofServer, accepted] = await Promise.all([
    audiencesOfServer(kube, account ?? claims?.account, account !== undefined, signal),
    kube.accepts(token, signal),
  ]).catch((cause: unknown) => {
    signal.throwIfAborted();
    throw unproven(source, cause instanceof Error ? cause.message : String(cause), audience, cause);
  });
  if (accepted || claims?.audiences.some((one) => ofServer.includes(one))) {
    throw new MeshError(
      'ERR_NOT_ALLOWED',
      `${source} opens the Kubernetes API with the rights of its ServiceAccount, so it is not sent; choose another audience, or ${allowing(audience)}`,
      { retry: 'never' },
    );
  }
  if (ofServer.length === 0) throw unproven(source, 'the API server names no audience of its own', audience);
}

/** Of a token from a file, the own credentials tell where they can: the agent need not be able to mint its like. */
async function audiencesOfServer(
  kube: Kube,
  account: AccountRef | undefined,
  isMinted: boolean,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const own = isMinted ? undefined : await kube.apiAudiences(undefined, signal);
  return own ?? (account && (await kube.apiAudiences(account, signal))) ?? [];
}

const allowing = (audience: string): string =>
  `start the agent with --allow-audience=${audience} (chart value allow.audiences)`;

function unproven(source: string, why: string, audience: string | undefined, cause?: unknown): MeshError {
  const next =
    audience === undefined ? 'use a token that names its audience' : `to send it in any case, ${allowing(audience)}`;
  return new MeshError(
    'ERR_MESH_TOKEN',
    `could not check whether ${source} opens the Kubernetes API, so it is not sent: ${why}; ${next}`,
    { cause },
  );
}
