import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { FIELD_MANAGER, OWNER_LABEL, refOf } from '../core/object.ts';
import { publicationRefs } from '../gateway/emissary.ts';
import { ownerLabel } from '../gateway/owner.ts';
import type { Target } from '../gateway/targets.ts';
import { KubeError } from '../kube/error.ts';
import type { Environment } from './environment.ts';
import type { Fence } from './publisher.ts';

/** Keeps a MeshCertificate with `deletionPolicy: Delete` until what it published was taken away in the safe order. */
export const FINALIZER = 'meshcert.dev/retire';

export const isDeleting = ({ metadata }: MeshCertificate): boolean =>
  metadata.deletionTimestamp !== undefined && (metadata.finalizers ?? []).includes(FINALIZER);

/** Adds or takes away our finalizer, as the policy says. One request, only when something is to be changed. */
export async function settleFinalizer(
  certificate: MeshCertificate,
  kube: Environment['kube'],
  signal: AbortSignal,
): Promise<void> {
  const { finalizers = [], deletionTimestamp } = certificate.metadata;
  const has = finalizers.includes(FINALIZER);
  const wants = certificate.spec.deletionPolicy === 'Delete';
  if (has === wants || (deletionTimestamp !== undefined && !has)) return;
  await setFinalizers(certificate, wants ? [...finalizers, FINALIZER] : without(finalizers), kube, signal);
}

/**
 * Takes the publication away: contexts before Secrets, since a context without its Secret means plaintext. Only what
 * carries our owner label goes. To be called only when no Mapping names a context of it.
 */
export async function retireAll(
  certificate: MeshCertificate,
  targets: readonly Target[] | undefined,
  env: Pick<Environment, 'kube' | 'spacings' | 'log'>,
  fence: Fence,
  signal: AbortSignal,
): Promise<void> {
  const { namespace = '' } = certificate.metadata;
  const owner = ownerLabel(certificate.metadata);
  const spacing = env.spacings.of(namespace);
  for (const ref of [...publicationRefs(certificate, targets)].reverse()) {
    const live = await env.kube.get(ref, signal).catch((error: unknown) => {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    });
    if (live?.metadata.labels?.[OWNER_LABEL] !== owner) continue;
    const gateway = ref.apiVersion.startsWith('getambassador.io/');
    const turn = await (gateway ? spacing.beforeGateway(signal) : spacing.beforeSecret(signal));
    try {
      fence.check();
      const { uid, resourceVersion } = live.metadata;
      await env.kube.delete(ref, { ...(uid ? { uid } : {}), ...(resourceVersion ? { resourceVersion } : {}) }, signal);
      env.log.info({ certificate: owner, object: `${ref.kind} ${namespace}/${ref.name}` }, 'retired with its owner');
    } finally {
      turn[Symbol.dispose]();
    }
  }
  await setFinalizers(certificate, without(certificate.metadata.finalizers ?? []), env.kube, signal);
}

const without = (finalizers: readonly string[]): readonly string[] => finalizers.filter((one) => one !== FINALIZER);

async function setFinalizers(
  certificate: MeshCertificate,
  finalizers: readonly string[],
  kube: Environment['kube'],
  signal: AbortSignal,
): Promise<void> {
  const { resourceVersion } = certificate.metadata;
  await kube.merge(
    refOf(certificate),
    { metadata: { finalizers, resourceVersion } },
    { fieldManager: FIELD_MANAGER },
    signal,
  );
}
