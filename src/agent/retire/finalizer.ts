import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import {
  describe,
  FIELD_MANAGER,
  type KubeObject,
  keyOf,
  OWNER_LABEL,
  preconditionOf,
  refOf,
} from '../../core/object.ts';
import type { Problem } from '../../core/problem.ts';
import { publicationRefs } from '../../gateway/desired.ts';
import { gatewayOf, gatewaysOf } from '../../gateway/gateway.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import type { Kube } from '../../kube/api.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Fence } from '../publish/publisher.ts';
import { listed } from './left.ts';
import type { RetireOptions } from './orphans.ts';
import type { UsedGateway } from './used-gateway.ts';

/** Keeps a MeshCertificate with `deletionPolicy: Delete` until its publication was deleted in the safe order. */
export const FINALIZER = 'meshcert.dev/retire';

export const isDeleting = ({ metadata }: Pick<KubeObject, 'metadata'>): boolean =>
  metadata.deletionTimestamp !== undefined && (metadata.finalizers ?? []).includes(FINALIZER);

/** Already retired: only somebody else's finalizer keeps the object, and nothing may be created again. */
export const isRetired = ({ metadata, spec }: MeshCertificate): boolean =>
  metadata.deletionTimestamp !== undefined &&
  spec.deletionPolicy === 'Delete' &&
  !(metadata.finalizers ?? []).includes(FINALIZER);

/** Whether all objects that might still need the publication are known; undefined: none were read yet. */
export const isDeletionJudged = (used: readonly UsedGateway[] | undefined): boolean =>
  used?.every(({ routes, retiring }) => routes.complete && retiring.synced) === true;

/** What a deletion waits for and what to do about it; undefined if it may proceed. */
export function deletionWaits(
  certificate: MeshCertificate,
  used: readonly UsedGateway[] | undefined,
): Problem | undefined {
  if (!isDeleting(certificate)) return undefined;
  const { name, namespace = '' } = certificate.metadata;
  const waits = (why: string) => ({
    code: 'ERR_RETIRE_WAITS',
    message: `${namespace}/${name} is being deleted: ${why}`,
  });
  if (certificate.spec.paused) return waits('it is paused, so nothing is deleted; set spec.paused to false');
  if (!used || !isDeletionJudged(used)) {
    const everything = used?.map(({ gateway }) => gateway.wording.everything).join(', ') ?? 'routes';
    return waits(`it waits until the agent can list all ${everything}; the Events and the log name what is missing`);
  }
  const users = used.flatMap(({ routes, retiring }) => [
    ...routes.users().map(({ route }) => route),
    ...retiring.users(),
  ]);
  if (users.length === 0) return undefined;
  return waits(
    `deletion waits for ${listed(users)}, which would lose mTLS; the certificate is renewed until then; ` +
      `run: meshcert offboard ${name} -n ${namespace}, or remove those references (${used.map(({ gateway }) => gateway.wording.release).join(', ')})`,
  );
}

/** Adds or removes our finalizer, as the policy says. One request, only when there is a change. */
export async function settleFinalizer(certificate: MeshCertificate, kube: Kube, signal: AbortSignal): Promise<void> {
  const { finalizers = [], deletionTimestamp } = certificate.metadata;
  const has = finalizers.includes(FINALIZER);
  const wants = certificate.spec.deletionPolicy === 'Delete';
  if (has === wants || (deletionTimestamp !== undefined && !has)) return;
  await setFinalizers(certificate, wants ? [...finalizers, FINALIZER] : without(finalizers), kube, signal);
}

/**
 * Deletes the publication: the objects that name a Secret before the Secret, since without it the gateway sends
 * plaintext. Only objects that carry our owner label are deleted. `isFree` is checked again before each object, since
 * each may wait for its turn. Resolves to whether everything is gone.
 */
export async function retireAll(
  certificate: MeshCertificate,
  used: readonly UsedGateway[],
  isFree: () => boolean,
  env: Omit<RetireOptions, 'dryRun'>,
  fence: Fence,
  signal: AbortSignal,
): Promise<boolean> {
  const { namespace = '' } = certificate.metadata;
  const owner = ownerLabel(certificate.metadata);
  const spacing = env.batchGaps.of(namespace);
  const uses = gatewaysOf(certificate.spec, env.gateways);
  const own = used.flatMap(({ retiring }) => retiring.own());
  const refs = new Map([...publicationRefs(certificate, uses), ...own].map((ref) => [keyOf(ref), ref]));
  for (const ref of [...refs.values()].reverse()) {
    const live = await env.kube.get(ref, signal).catch((error: unknown) => {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    });
    if (live?.metadata.labels?.[OWNER_LABEL] !== owner) continue;
    const gateway = gatewayOf(ref, env.gateways);
    const turn = await (gateway ? spacing.beforeGateway(gateway.kind, signal) : spacing.beforeSecret(signal));
    try {
      if (!isFree()) return false;
      fence.check();
      await env.kube.delete(ref, preconditionOf(live), signal);
      env.log.info({ certificate: owner, object: describe(ref) }, 'deleted with its MeshCertificate');
    } finally {
      turn[Symbol.dispose]();
    }
  }
  await setFinalizers(certificate, without(certificate.metadata.finalizers ?? []), env.kube, signal);
  return true;
}

const without = (finalizers: readonly string[]): readonly string[] => finalizers.filter((one) => one !== FINALIZER);

async function setFinalizers(
  certificate: MeshCertificate,
  finalizers: readonly string[],
  kube: Kube,
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
