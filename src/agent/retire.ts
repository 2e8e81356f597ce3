import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { type KubeObject, OWNER_LABEL, refOf } from '../core/object.ts';
import { ownerLabel } from '../gateway/owner.ts';
import type { Target } from '../gateway/targets.ts';
import { KubeError } from '../kube/error.ts';
import type { Environment } from './environment.ts';

/**
 * Deletes our TLSContexts that no target needs. `targets` keeps a context for as long as a Mapping names it, so a
 * Mapping never loses the context that it refers to.
 */
export async function retireContexts(
  certificate: MeshCertificate,
  standing: readonly KubeObject[],
  targets: readonly Target[],
  env: Pick<Environment, 'kube' | 'spacings' | 'log' | 'dryRun'>,
  signal: AbortSignal,
): Promise<void> {
  const needed = new Set(targets.map(({ contextName }) => contextName));
  const owner = ownerLabel(certificate.metadata);
  for (const context of standing) {
    const { labels, name, namespace = '', uid, resourceVersion, deletionTimestamp } = context.metadata;
    if (labels?.[OWNER_LABEL] !== owner || needed.has(name) || deletionTimestamp !== undefined || env.dryRun) continue;
    const turn = await env.spacings.of(namespace).beforeGateway(signal);
    try {
      await env.kube.delete(
        refOf(context),
        { ...(uid ? { uid } : {}), ...(resourceVersion ? { resourceVersion } : {}) },
        signal,
      );
      env.log.info({ certificate: owner, object: `TLSContext ${namespace}/${name}` }, 'retired: no Mapping needs it');
    } catch (error) {
      if (!(error instanceof KubeError) || error.status !== 409) throw error;
    } finally {
      turn[Symbol.dispose]();
    }
  }
}
