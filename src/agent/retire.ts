import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { Problem } from '../core/problem.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { StatusInput } from '../core/status-of.ts';
import { publicationRefs } from '../gateway/desired.ts';
import {
  type Gateway,
  type GatewayInput,
  type GatewayUse,
  gatewayOf,
  gatewaysOf,
  isRefused,
} from '../gateway/gateway.ts';
import { ownerLabel } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Log } from '../mesh/log.ts';
import {
  describe,
  FIELD_MANAGER,
  type KubeObject,
  keyOf,
  type ObjectRef,
  OWNER_LABEL,
  preconditionOf,
  refOf,
} from '../objects/objects.ts';
import type { Informer, View, Watcher } from './informers.ts';
import type { Fence } from './publisher.ts';
import type { RouteKeeping, RouteUser } from './routes.ts';
import type { BatchGaps } from './write-order.ts';

/** Keeps a MeshCertificate with `deletionPolicy: Delete` until its publication was deleted in the safe order. */
export const FINALIZER = 'meshcert.dev/retire';

export const isDeleting = ({ metadata }: Pick<KubeObject, 'metadata'>): boolean =>
  metadata.deletionTimestamp !== undefined && (metadata.finalizers ?? []).includes(FINALIZER);

/** Already retired: only somebody else's finalizer keeps the object, and nothing may be created again. */
export const isRetired = ({ metadata, spec }: MeshCertificate): boolean =>
  metadata.deletionTimestamp !== undefined &&
  spec.deletionPolicy === 'Delete' &&
  !(metadata.finalizers ?? []).includes(FINALIZER);

/** Whether all objects that might still need the publication are known. */
export const isDeletionJudged = (used: readonly UsedGateway[]): boolean =>
  used.every(({ routes, retiring }) => routes.complete && retiring.synced);

/** What a deletion waits for and what to do about it; undefined if it may proceed. */
export function deletionWaits(certificate: MeshCertificate, used: readonly UsedGateway[]): Problem | undefined {
  if (!isDeleting(certificate)) return undefined;
  const { name, namespace = '' } = certificate.metadata;
  const waits = (why: string) => ({
    code: 'ERR_RETIRE_WAITS',
    message: `${namespace}/${name} is being deleted: ${why}`,
  });
  if (certificate.spec.paused) return waits('it is paused, so nothing is deleted; set spec.paused to false');
  if (!isDeletionJudged(used)) {
    const everything = used.map(({ gateway }) => gateway.wording.everything).join(', ');
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
  const gap = env.batchGaps.of(namespace);
  const uses = gatewaysOf(certificate.spec, env.gateways);
  const own = used.flatMap(({ retiring }) => retiring.own());
  const refs = new Map([...publicationRefs(certificate, uses), ...own].map((ref) => [keyOf(ref), ref]));
  for (const ref of [...refs.values()].reverse()) {
    const live = await env.kube.get(ref, signal);
    if (live?.metadata.labels?.[OWNER_LABEL] !== owner) continue;
    const gateway = gatewayOf(ref, env.gateways);
    const turn = await (gateway ? gap.beforeGateway(gateway.kind, signal) : gap.beforeSecret(signal));
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

/** What deletions need. */
interface RetireOptions {
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
    informers: Informer,
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
    this.#view = (owner) => own.map((scope) => informers.view(scope, this, { bare: true, optional: true, owner }));
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
    keeping: Keeping,
    open: readonly ObjectRef[],
    env: RetireOptions,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<void> {
    if (!keeping.complete || !this.synced) return;
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
      const { namespace = '', deletionTimestamp } = object.metadata;
      const ref = refOf(object);
      if (isNeeded(ref) || deletionTimestamp !== undefined || env.dryRun) continue;
      const turn = await env.batchGaps.of(namespace).beforeGateway(this.gateway.kind, signal);
      try {
        if (isNeeded(ref)) continue;
        fence.check();
        await env.kube.delete(ref, preconditionOf(object), signal);
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

/** By kind of gateway, what `LeftFields.of` returns for it. */
export type GatewaysInUse = NonNullable<PublicationStatus['gateways']>;

/**
 * The MeshCertificate with the gateways that its spec had before, each configured to retire what is left of it. `before`:
 * what the reconciler of the previous spec recorded; without it, the status says so.
 */
export function withLeft(
  certificate: MeshCertificate,
  gateways: readonly Gateway[],
  before: GatewaysInUse | undefined,
): MeshCertificate {
  const { spec, status } = certificate;
  const recorded = before ?? (status as Partial<PublicationStatus> | undefined)?.gateways ?? {};
  const left = gateways.flatMap(({ kind, left }) => {
    const config = spec.gateways[kind] === undefined ? left?.read(recorded[kind]) : undefined;
    return config === undefined ? [] : [[kind, config] as const];
  });
  if (left.length === 0) return certificate;
  return { ...certificate, spec: { ...spec, gateways: { ...spec.gateways, ...Object.fromEntries(left) } } };
}

/** What the status must remember: the gateways of the spec, and those of which something is left. */
export function gatewaysInUse(used: readonly UsedGateway[], namespace: string): GatewaysInUse {
  return Object.fromEntries(
    used.flatMap((one) => {
      const { gateway, config, isLeft } = one;
      if (!gateway.left || (isLeft && !remains(one))) return [];
      return [[gateway.kind, gateway.left.of(config, namespace) as object]];
    }),
  );
}

/** Whether there may be something left. */
const remains = ({ routes, retiring }: UsedGateway): boolean =>
  !routes.complete || !retiring.synced || retiring.own().length > 0 || routes.users().length > 0;

/** What keeps what an earlier spec left, and what to do about it. */
function retirementOf({ gateway, routes, retiring }: UsedGateway): StatusInput['referenced'][number] {
  const { everything, release } = gateway.wording;
  const say = (why: string) => ({
    ...({ status: 'False', reason: 'Retiring' } as const),
    message: `The spec no longer has fields for ${gateway.title}. ${why}`,
  });
  if (!routes.complete || !retiring.synced) {
    return say(
      `What was made for it stays until the agent can list all ${everything}; the Events and the log name what is missing.`,
    );
  }
  const users = routes.users().map(({ route }) => route);
  if (users.length === 0) return say('What was made for it is being deleted.');
  return say(`${listed(users)} would lose mTLS, so what was made for it stays; remove those references (${release}).`);
}

/** More names do not help the reader of a message. */
const LISTED = 3;

/** The first of these names, and how many more there are. */
function listed(names: readonly string[]): string {
  const more = names.length > LISTED ? ` and ${names.length - LISTED} more` : '';
  return names.slice(0, LISTED).join(', ') + more;
}

/** What the status says of the routes of all gateways. */
export function reportOf(used: readonly UsedGateway[]): Pick<StatusInput, 'routes' | 'targets' | 'referenced'> {
  const all = used.map(({ gateway, routes, isLeft }) => ({
    gateway,
    isLeft,
    states: routes.states(),
    targets: routes.targets() ?? [],
  }));
  return {
    routes: all.flatMap(({ states }) => states.map(({ service: _, upstreams: __, ...status }) => status)),
    targets: all.flatMap(({ gateway, targets }) =>
      gateway.routes.identities(targets).map(({ id, object }) => ({ id, context: object })),
    ),
    // What is left comes first: the status of the routes shows the rest.
    referenced: [
      ...used.flatMap((one) => (one.isLeft && remains(one) ? [retirementOf(one)] : [])),
      ...all.flatMap(({ gateway, states, isLeft }) => {
        return isLeft ? [] : [gateway.wording.referenced(states, states.filter(isRefused))];
      }),
    ],
  };
}

/** A gateway that one MeshCertificate uses, with the components that maintain its routes and its objects. */
export interface UsedGateway extends Pick<GatewayUse, 'gateway' | 'config'> {
  readonly routes: RouteKeeping;
  readonly retiring: Retiring;
  /** An earlier spec used it; now it only retires what is left. */
  readonly isLeft: boolean;
}

/** What the publication has to serve now. */
export const usesOf = (used: readonly UsedGateway[]): readonly GatewayUse[] =>
  used.map(({ gateway, config, routes }) => ({ gateway, config, targets: routes.targets() }));
