import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, keyOf, type ObjectRef, OWNER_LABEL, refOf } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { GatewayInput } from '../../gateway/input.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import type { Kube } from '../../kube/api.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Log } from '../../mesh/log.ts';
import type { SharedInformers, View, Watcher } from '../informers/by-kind.ts';
import type { BatchGaps } from '../publish/batch-gap.ts';
import type { Fence } from '../publish/publisher.ts';
import type { RouteKeeping, RouteUser } from '../routes/contract.ts';

/** What deletions need. */
export interface RetireOptions {
  readonly kube: Kube;
  readonly batchGaps: BatchGaps;
  readonly gateways: readonly Gateway[];
  readonly log: Log;
  /** Delete nothing. */
  readonly dryRun: boolean;
}

type Keeping = Pick<RouteKeeping, 'complete' | 'targets' | 'users'>;

/**
 * Deletes the objects of one gateway's own kinds that belong to one MeshCertificate and that nothing needs any more.
 */
export class Retiring implements Watcher, Disposable {
  readonly gateway: Gateway;
  readonly #input: GatewayInput<unknown>;
  readonly #owner: string;
  /** Views of our own objects. */
  readonly #views: readonly View[];
  readonly #view: (owner: string | undefined) => readonly View[];
  /** Views of the objects of others too, which only a deletion needs. */
  #allViews: readonly View[] | undefined;
  readonly #changed: () => void;
  /** The inputs for which the last run found nothing to delete, unless an object has changed since. */
  #doneFor: { readonly targets: readonly unknown[]; readonly users: readonly RouteUser[] } | undefined;

  constructor(
    discovery: SharedInformers,
    gateway: Gateway,
    { metadata, spec }: Pick<MeshCertificate, 'metadata' | 'spec'>,
    changed: () => void,
  ) {
    const { name, namespace = '', uid } = metadata;
    this.gateway = gateway;
    this.#input = { meta: { name, namespace, uid }, spec, config: spec.gateways[gateway.kind] };
    this.#owner = ownerLabel(metadata);
    this.#changed = changed;
    const { own } = gateway.routes.scopes(this.#input);
    this.#view = (owner) =>
      own.map(({ resource, namespace, name: only }) =>
        discovery.view(resource, namespace, this, { name: only, bare: true, optional: true, owner }),
      );
    this.#views = this.#view(this.#owner);
  }

  changed(): void {
    this.#doneFor = undefined;
    this.#changed();
  }

  /** The keeper of the routes follows the same objects, and reports the failure. */
  failed(): void {}

  get synced(): boolean {
    return this.#views.every((view) => view.synced);
  }

  /** Our objects that exist. */
  own(): readonly ObjectRef[] {
    return itemsOf(this.#views).map(refOf);
  }

  /**
   * Objects of others that name one of our Secrets: without it, the gateway would not use them. From the first call on,
   * their changes count too.
   */
  users(): readonly string[] {
    this.#allViews ??= this.#view(undefined);
    const { meta, spec } = this.#input;
    const secrets = [spec.secretName, spec.caSecretName];
    const all = itemsOf(this.#allViews);
    const isNamed = (object: KubeObject) =>
      this.gateway
        .secretsNamedBy(object, all)
        .some(({ namespace, name }) => namespace === meta.namespace && secrets.includes(name));
    return all.flatMap((object) => (!this.#isOurs(object) && isNamed(object) ? [describe(refOf(object))] : []));
  }

  /**
   * Does nothing until everything is known; then checks every object, but only after a change. `open`: what is still to
   * be written; it may take the place of another object of its kind and namespace, which stays until then.
   */
  async look(
    keeping: Keeping | undefined,
    open: readonly ObjectRef[],
    env: RetireOptions,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<void> {
    if (!keeping?.complete || !this.synced) return;
    const targets = keeping.targets();
    const users = keeping.users();
    if (this.#doneFor?.targets === targets && this.#doneFor.users === users) return;
    // Set before the check: an object that changes meanwhile triggers another one.
    this.#doneFor = open.length > 0 ? undefined : { targets, users };
    try {
      await this.#retire(keeping, open, env, fence, signal);
    } catch (error) {
      this.#doneFor = undefined;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const view of [...this.#views, ...(this.#allViews ?? [])]) view[Symbol.dispose]();
  }

  /**
   * An object is needed as long as a route uses it, so that a route never loses the object it refers to; each is
   * checked again when its turn has come.
   */
  async #retire(
    keeping: Keeping,
    open: readonly ObjectRef[],
    env: RetireOptions,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<void> {
    const isReplaced = ({ kind, namespace }: ObjectRef) =>
      open.some((one) => one.kind === kind && one.namespace === namespace);
    const isNeeded = (ref: ObjectRef) => isReplaced(ref) || this.#needed(keeping).has(keyOf(ref));
    for (const object of itemsOf(this.#views)) {
      const { namespace = '', uid, resourceVersion, deletionTimestamp } = object.metadata;
      const ref = refOf(object);
      if (isNeeded(ref) || deletionTimestamp !== undefined || env.dryRun) continue;
      const turn = await env.batchGaps.of(namespace).beforeGateway(this.gateway.kind, signal);
      try {
        if (isNeeded(ref)) continue;
        fence.check();
        await env.kube.delete(
          ref,
          { ...(uid ? { uid } : {}), ...(resourceVersion ? { resourceVersion } : {}) },
          signal,
        );
        env.log.info({ certificate: this.#owner, object: describe(ref) }, this.gateway.wording.orphan);
      } catch (error) {
        if (!(error instanceof KubeError) || error.status !== 409) throw error;
      } finally {
        turn[Symbol.dispose]();
      }
    }
  }

  /** The objects of the publication, and those that a route uses although the spec no longer wants them. */
  #needed(keeping: Keeping): ReadonlySet<string> {
    const refs = this.gateway.references({ ...this.#input, targets: keeping.targets() });
    return new Set([...refs, ...keeping.users().map(({ object }) => object)].map(keyOf));
  }

  #isOurs({ metadata }: KubeObject): boolean {
    return metadata.labels?.[OWNER_LABEL] === this.#owner;
  }
}

const itemsOf = (views: readonly View[]): readonly KubeObject[] => views.flatMap((view) => view.items());
