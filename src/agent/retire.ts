import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { type KubeObject, OWNER_LABEL, refOf } from '../core/object.ts';
import { ownerLabel } from '../gateway/owner.ts';
import type { Target } from '../gateway/targets.ts';
import { KubeError } from '../kube/error.ts';
import { RESOURCES } from '../kube/resources.ts';
import type { Discovery, View } from './discovery.ts';
import type { Environment } from './environment.ts';
import type { MappingKeeping } from './mappings-contract.ts';

const NONE: readonly Target[] = [];

/** Takes away the TLSContexts of one MeshCertificate that no target needs any more. */
export class Retiring implements Disposable {
  readonly #contexts: View;
  /** The targets for which nothing was left over at the last look, unless a context has changed since. */
  #doneFor: readonly Target[] | undefined;

  constructor(discovery: Discovery, namespace: string) {
    const forget = () => {
      this.#doneFor = undefined;
    };
    this.#contexts = discovery.view(RESOURCES.tlsContexts, namespace, { changed: forget, failed() {} });
  }

  /** Does nothing until all is known; then looks at every context, but only when something is different. */
  async look(
    certificate: MeshCertificate,
    mappings: Pick<MappingKeeping, 'complete' | 'targets'> | undefined,
    env: Pick<Environment, 'kube' | 'spacings' | 'log' | 'dryRun'>,
    signal: AbortSignal,
  ): Promise<void> {
    if (!mappings?.complete || !this.#contexts.synced) return;
    const targets = certificate.spec.tlsContext.enabled ? mappings.targets() : NONE;
    if (this.#doneFor === targets) return;
    // Before the look: a context that changes meanwhile asks for another.
    this.#doneFor = targets;
    try {
      await retireContexts(certificate, this.#contexts.items(), targets, env, signal);
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
 * Deletes our TLSContexts that no target needs. `targets` keeps a context for as long as a Mapping names it, so a
 * Mapping never loses the context that it refers to.
 */
async function retireContexts(
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
