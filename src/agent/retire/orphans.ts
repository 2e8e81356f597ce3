import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, type ObjectRef, OWNER_LABEL, refOf } from '../../core/object.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import type { Kube } from '../../kube/api.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Log } from '../../mesh/log.ts';
import type { SharedInformers, View, Watcher } from '../informers/by-kind.ts';
import type { BatchGaps } from '../publish/batch-gap.ts';
import type { Fence } from '../publish/publisher.ts';
import type { MappingKeeping } from '../routes/mappings-contract.ts';

/** What deletions are carried out with. */
export interface RetireOptions {
  readonly kube: Kube;
  readonly batchGaps: BatchGaps;
  readonly log: Log;
  /** Delete nothing. */
  readonly dryRun: boolean;
}

/** A context that must stand. */
type Needed = readonly { readonly contextName: string }[];

/** Takes away the TLSContexts of one MeshCertificate that no target needs any more. */
export class Retiring implements Watcher, Disposable {
  readonly #contexts: View;
  readonly #changed: () => void;
  /** What nothing was left over for at the last look, unless a context has changed since. */
  #doneFor: Needed | undefined;

  constructor(discovery: SharedInformers, namespace: string, changed: () => void) {
    this.#changed = changed;
    this.#contexts = discovery.view(RESOURCES.tlsContexts, namespace, this);
  }

  changed(): void {
    this.#doneFor = undefined;
    this.#changed();
  }

  /** Whoever keeps the Mappings follows the same contexts, and tells. */
  failed(): void {}

  get synced(): boolean {
    return this.#contexts.synced;
  }

  /** Our contexts that stand. */
  own({ metadata }: MeshCertificate): readonly ObjectRef[] {
    const owner = ownerLabel(metadata);
    return this.#contexts
      .items()
      .filter((context) => context.metadata.labels?.[OWNER_LABEL] === owner)
      .map(refOf);
  }

  /** Contexts of others that name a Secret of ours: without it, the gateway would not use them. */
  users({ metadata, spec }: MeshCertificate): readonly string[] {
    const owner = ownerLabel(metadata);
    const secrets = new Set<unknown>([spec.secretName, spec.caSecretName]);
    return this.#contexts.items().flatMap((context) => {
      const { secret, ca_secret } = (context.spec ?? {}) as { secret?: unknown; ca_secret?: unknown };
      const isOurs = context.metadata.labels?.[OWNER_LABEL] === owner;
      return !isOurs && (secrets.has(secret) || secrets.has(ca_secret)) ? [describe(refOf(context))] : [];
    });
  }

  /** Does nothing until all is known; then looks at every context, but only when something is different. */
  async look(
    certificate: MeshCertificate,
    mappings: Pick<MappingKeeping, 'complete' | 'targets' | 'users'> | undefined,
    env: RetireOptions,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<void> {
    if (!mappings?.complete || !this.#contexts.synced) return;
    // Who no longer wants a context still keeps the one that a Mapping names.
    const { enabled } = certificate.spec.tlsContext;
    const needed = () => (enabled ? mappings.targets() : mappings.users());
    const now = needed();
    if (this.#doneFor === now) return;
    // Before the look: a context that changes meanwhile asks for another.
    this.#doneFor = now;
    try {
      await retireContexts(certificate, this.#contexts.items(), needed, env, fence, signal);
    } catch (error) {
      this.#doneFor = undefined;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#contexts[Symbol.dispose]();
  }
}

/**
 * Deletes our TLSContexts that nothing needs. A context is needed for as long as a Mapping names it, so a Mapping
 * never loses the one that it refers to; each is asked about again when its turn has come.
 */
async function retireContexts(
  certificate: MeshCertificate,
  standing: readonly KubeObject[],
  needed: () => Needed,
  env: RetireOptions,
  fence: Fence,
  signal: AbortSignal,
): Promise<void> {
  const isNeeded = (name: string) => needed().some(({ contextName }) => contextName === name);
  const owner = ownerLabel(certificate.metadata);
  for (const context of standing) {
    const { labels, name, namespace = '', uid, resourceVersion, deletionTimestamp } = context.metadata;
    if (labels?.[OWNER_LABEL] !== owner || isNeeded(name) || deletionTimestamp !== undefined || env.dryRun) continue;
    const turn = await env.batchGaps.of(namespace).beforeGateway(signal);
    try {
      if (isNeeded(name)) continue;
      fence.check();
      await env.kube.delete(
        refOf(context),
        { ...(uid ? { uid } : {}), ...(resourceVersion ? { resourceVersion } : {}) },
        signal,
      );
      env.log.info(
        { certificate: owner, object: `TLSContext ${namespace}/${name}` },
        'deleted a TLSContext that no Mapping needs',
      );
    } catch (error) {
      if (!(error instanceof KubeError) || error.status !== 409) throw error;
    } finally {
      turn[Symbol.dispose]();
    }
  }
}
