import { followed } from '../async/retrying.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { retryDelay } from '../core/retry.ts';
import type {
  Gateway,
  MeshView,
  ObservedObjects,
  RouteChange,
  RouteInput,
  RouteJudgement,
  RouteState,
  Routes,
  RouteVerdict,
  Scope,
} from '../gateway/gateway.ts';
import { ownerLabel } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Targeting, TargetRules } from '../mesh/cluster.ts';
import { codeOf, MeshError } from '../mesh/error.ts';
import type { Runtime } from '../mesh/log.ts';
import { safeMessage } from '../mesh/secrets.ts';
import { describe, type KubeObject, keyOf, type ObjectRef, preconditionOf, refOf } from '../objects/objects.ts';
import type { Informer, View, Watcher } from './informers.ts';
import type { Fence } from './publisher.ts';
import type { BatchGap } from './write-order.ts';

interface Failure {
  /** Absent while it may be a race with somebody else's write. */
  readonly error: Error | undefined;
  readonly attempts: number;
  /** Monotonic milliseconds. */
  readonly retryAt: number;
}

/** The route has changed or was deleted since it was judged: the watch is about to show it. */
const RACES: ReadonlySet<string> = new Set(['ERR_KUBE_CONFLICT', 'ERR_KUBE_NOT_FOUND']);
/** This many in a row are not a race but, for example, another manager of the same field. */
const SUSPICIOUS_RACES = 4;

/** Resolved: one promise for a thousand keepers. */
const OVER = Promise.resolve();

const NO_OBJECTS: ObservedObjects = {
  routes: [],
  own: [],
  unseen: new Map(),
  unserved: new Set(),
  behind: () => [],
  hidden: () => 'not listed yet',
};

export class RouteKeeper implements RouteKeeping, Watcher {
  readonly #options: RouteKeeperOptions;
  readonly #input: RouteInput<unknown>;
  #view: RouteView | undefined;
  #rules: TargetRules | undefined;
  #judged: RouteJudgement<unknown> = { verdicts: [], targets: [] };
  /** Keys of our objects. */
  #existing: readonly string[] = [];
  #users: readonly RouteUser[] = [];
  #failures: Map<string, Failure> | undefined;
  /** The version of each route that a write was based on, until the watch shows the result. */
  #applied: Map<string, string | undefined> | undefined;
  #running: AbortSignal | undefined;
  #syncing: Promise<void> = Promise.resolve();
  #reported = '';

  constructor(options: RouteKeeperOptions) {
    this.#options = options;
    const { gateway, certificate, targeting, mesh } = options;
    const { name, namespace = '', uid } = certificate.metadata;
    const { spec } = certificate;
    this.#input = { meta: { name, namespace, uid }, spec, config: spec.gateways[gateway.kind], mesh };
    if (!targeting) this.#judged = gateway.routes.judge(this.#input, NO_OBJECTS);
  }

  get complete(): boolean {
    return this.#view?.complete === true && (!this.#options.targeting || this.#rules !== undefined);
  }

  targets(): readonly unknown[] {
    return this.#judged.targets;
  }

  states(): readonly RouteState[] {
    return this.#judged.verdicts.map((verdict) => this.#state(verdict));
  }

  users(): readonly RouteUser[] {
    return this.#users;
  }

  run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return OVER;
    const { sharedInformers, gateway, targeting } = this.#options;
    this.#running = signal;
    this.#view = new RouteView(sharedInformers, this, gateway.routes, this.#input);
    signal.addEventListener('abort', this, { once: true });
    this.#judge();
    return targeting ? this.#followRules(targeting, signal) : OVER;
  }

  /** The signal was aborted. */
  handleEvent(): void {
    this.#view?.[Symbol.dispose]();
    this.#view = undefined;
  }

  changed(): void {
    this.#judge();
  }

  failed(error: Error): void {
    this.#options.onError(error);
    this.#judge();
  }

  sync(signal: AbortSignal, fence: Fence): Promise<void> {
    const next = this.#syncing.then(() => this.#sync(signal, fence));
    this.#syncing = next.catch(() => {});
    return next;
  }

  async #sync(signal: AbortSignal, fence: Fence): Promise<void> {
    const { kube, batchGap, gateway } = this.#options;
    for (const verdict of this.#judged.verdicts) {
      if (!this.complete || this.#options.dryRun) return;
      const change = this.#due(verdict);
      if (change === undefined) continue;
      const { route } = verdict;
      const key = keyOf(refOf(route));
      try {
        await applyChange(route, change, { kube, batchGap, gateway: gateway.kind, fence }, signal);
        this.#applied ??= new Map();
        this.#applied.set(key, route.metadata.resourceVersion);
        this.#failures?.delete(key);
      } catch (error) {
        if (signal.aborted || !(error instanceof KubeError)) throw error;
        this.#failed(key, error);
      }
    }
    this.#tell();
  }

  /** The change that a route needs now. */
  #due({ route, selected, outcome }: RouteVerdict) {
    if (!selected || !('target' in outcome)) return undefined;
    const { change, isSet, object } = outcome.target;
    if (!change) return undefined;
    const key = keyOf(refOf(route));
    const isWritten = this.#applied?.has(key) && this.#applied.get(key) === route.metadata.resourceVersion;
    const isEarly = this.#options.clock.monotonic() < (this.#failures?.get(key)?.retryAt ?? 0);
    const exists = this.#existing.includes(keyOf(object)) || this.#options.isPublished(object);
    return isSet || isWritten || isEarly || !exists ? undefined : change;
  }

  #judge(): void {
    const view = this.#view;
    if (!view || (this.#options.targeting && !this.#rules)) return;
    const input = { ...this.#input, rules: this.#rules };
    const observed = view.observe(input);
    this.#existing = observed.own.map((object) => keyOf(refOf(object))).sort();
    this.#judged = this.#options.gateway.routes.judge(input, observed);
    this.#users = this.#judged.verdicts.flatMap(({ route, dependsOn }) =>
      dependsOn ? [{ route: describe(refOf(route)), object: dependsOn }] : [],
    );
    const seen = new Set(this.#judged.verdicts.map(({ route }) => keyOf(refOf(route))));
    for (const notes of [this.#failures, this.#applied]) {
      for (const key of notes?.keys() ?? []) if (!seen.has(key)) notes?.delete(key);
    }
    this.#tell();
  }

  /** Notifies the caller when something is different that it acts on or shows. */
  #tell(): void {
    const targets = this.targets();
    const now = JSON.stringify([this.complete, targets, this.states(), this.#users, this.#relevant(targets)]);
    if (now === this.#reported) return;
    this.#reported = now;
    this.#options.onChange();
  }

  /** Our objects that routes wait for, and those that nothing needs. The caller observes the publication itself. */
  #relevant(targets: readonly unknown[]): readonly string[] {
    const published = this.#options.gateway.references({ ...this.#input, targets }).map(keyOf);
    const used = this.#judged.verdicts.flatMap(({ outcome }) => ('target' in outcome ? outcome.target.object : []));
    const awaited = used.map(keyOf);
    return this.#existing.filter((key) => awaited.includes(key) || !published.includes(key));
  }

  #failed(key: string, error: KubeError): void {
    const { clock, random, onError, onChange } = this.#options;
    const attempts = (this.#failures?.get(key)?.attempts ?? 0) + 1;
    const wait = retryDelay(attempts, random);
    const isRace = RACES.has(error.code) && attempts < SUSPICIOUS_RACES;
    this.#failures ??= new Map();
    this.#failures.set(key, { error: isRace ? undefined : error, attempts, retryAt: clock.monotonic() + wait });
    if (!isRace) onError(error);
    clock.sleep(wait, this.#running).then(onChange, () => {});
  }

  #followRules(targeting: Targeting, signal: AbortSignal): Promise<void> {
    const { clock, random, onError } = this.#options;
    return followed(
      {
        open: () => targeting.targets(signal),
        each: (rules) => {
          this.#rules = rules;
          this.#judge();
        },
        ended: () => new MeshError('ERR_MESH_UNAVAILABLE', 'the stream of target rules ended; it is opened again'),
      },
      { clock, delay: (failures) => retryDelay(failures, random), failed: onError },
      signal,
    );
  }

  #state({ route, service, selected, uses, outcome, upstreams }: RouteVerdict): RouteState {
    const { name, namespace = '' } = route.metadata;
    const target = 'target' in outcome ? outcome.target : undefined;
    const isSet = target?.isSet === true;
    const failure = isSet ? undefined : this.#failures?.get(keyOf(refOf(route)))?.error;
    const refusal = 'code' in outcome ? outcome : undefined;
    const isUnseen = refusal?.code === 'ERR_TARGET_UNSEEN';
    const code =
      isUnseen && !this.complete ? undefined : (refusal?.code ?? (failure && codeOf(failure, 'ERR_PUBLISH')));
    const context = target?.object.name ?? uses;
    const message = refusal?.message ?? failure?.message;
    return {
      name,
      namespace,
      kind: route.kind,
      state: code ?? (selected && !isSet ? 'waiting' : 'ok'),
      ...(context === undefined ? {} : { context }),
      ...(message === undefined ? {} : { message: safeMessage(message) }),
      service,
      ...(isSet && upstreams ? { upstreams } : {}),
    };
  }
}

/** A route that uses one of our objects now, whether or not it is selected. */
export interface RouteUser {
  /** Kind, namespace and name. */
  readonly route: string;
  readonly object: ObjectRef;
}

export interface RouteKeeperOptions extends Runtime {
  readonly kube: Kube;
  /** Shared by all keepers of an agent. */
  readonly sharedInformers: Informer;
  /** Judge and report, write nothing. */
  readonly dryRun: boolean;
  readonly certificate: Pick<MeshCertificate, 'metadata' | 'spec'>;
  readonly gateway: Gateway;
  /** The opened adapter if it has the capability (`isTargeting`); undefined: one identity serves the mesh. */
  readonly targeting: Targeting | undefined;
  /** What gateways must know of the mesh. */
  readonly mesh: MeshView;
  /** Whether an object of the publication exists that is of no kind of the gateway's, such as the Secret of the pair. */
  isPublished(ref: ObjectRef): boolean;
  /** The batch gap of the gateway, shared with the writes of its Secrets. */
  readonly batchGap: BatchGap;
  /** Targets, states or what `sync` can do have changed. Called often and synchronously. */
  onChange(): void;
  /** A watch or a write failed and is retried; for status and metrics. */
  onError(error: Error): void;
}

/**
 * Maintains the routes of one gateway. The caller publishes what `targets()` needs, calls `sync` after each change, and
 * retires those of its objects that `targets()` does not need once it is `complete`.
 */
export interface RouteKeeping {
  /** Everything was listed once and the mesh's rules are known. Before that, a missing target proves nothing. */
  readonly complete: boolean;
  /** What the routes need of the publication, as far as is known; the same array until the routes are judged again. */
  targets(): readonly unknown[];
  states(): readonly RouteState[];
  /** The routes that would lose their object if ours were deleted; the same array until there is a change. */
  users(): readonly RouteUser[];
  /**
   * Changes each route whose object exists. Writes nothing when there is no change; safe to call at any time. The fence
   * is checked before each write, which may have to wait for its turn.
   */
  sync(signal: AbortSignal, fence: Fence): Promise<void>;
  /**
   * Watches until the signal; the returned promise resolves when everything has ended. A failed watch does not reject
   * it.
   */
  run(signal: AbortSignal): Promise<void>;
}

const NOWHERE: ReadonlyMap<string, View> = new Map();

/** The inputs of one observation: of a thousand MeshCertificates, each has a few routes and objects of its own. */
interface Looked {
  readonly input: RouteInput<unknown>;
  readonly routes: readonly KubeObject[];
  readonly own: readonly KubeObject[];
}

/**
 * One MeshCertificate's view of routes, of its own objects of the gateway's kinds, and of the objects behind its
 * routes.
 */
class RouteView implements Disposable {
  readonly #informer: Informer;
  readonly #watcher: Watcher;
  readonly #rules: Pick<Routes<unknown, unknown>, 'concern' | 'behind'>;
  readonly #routes: readonly View[];
  readonly #own: readonly View[];
  #behind = NOWHERE;
  #looked: Looked | undefined;

  constructor(informer: Informer, watcher: Watcher, rules: Routes<unknown, unknown>, input: RouteInput<unknown>) {
    this.#informer = informer;
    this.#watcher = watcher;
    this.#rules = rules;
    const { routes, own } = rules.scopes(input);
    const owner = ownerLabel(input.meta);
    this.#routes = routes.map((scope) => this.#concerning(scope));
    this.#own = own.map((scope) => informer.view(scope, watcher, { bare: true, optional: true, owner }));
  }

  /**
   * Whether everything is known that can be: routes and own objects, and the objects behind them if reading those is
   * allowed.
   */
  get complete(): boolean {
    return (
      [...this.#routes, ...this.#own].every(({ synced }) => synced) &&
      [...this.#behind.values()].every(({ synced, problem }) => synced || problem !== undefined)
    );
  }

  /** The observed objects; opens and closes watches as the routes point to other namespaces. */
  observe(input: RouteInput<unknown>): ObservedObjects {
    const own = exact(this.#own.flatMap((view) => view.items()));
    const concerns = this.#rules.concern(input, own);
    const routes = exact(this.#routes.flatMap((view) => view.items().filter(concerns)));
    this.#looked = { input, routes, own };
    this.#look(this.#rules.behind(input, { routes, own }));
    const behind = [...this.#behind.values()];
    const all = [...behind, ...this.#routes, ...this.#own];
    return {
      routes,
      own,
      behind: (kind) => behind.flatMap((view) => (view.scope.resource.kind === kind ? view.items() : [])),
      unseen: unseen(behind),
      hidden: (kind, namespace) => hidden(behind, kind, namespace),
      unserved: new Set(all.flatMap(({ scope, unserved }) => (unserved ? [scope.resource.kind] : []))),
    };
  }

  [Symbol.dispose](): void {
    for (const view of [...this.#routes, ...this.#own, ...this.#behind.values()]) view[Symbol.dispose]();
  }

  /** Passes on only the first news, and the changes that concern us. */
  #concerning(scope: Scope): View {
    const watcher = this.#watcher;
    let isKnown = false;
    const changed: Watcher['changed'] = (keys, ours) => {
      const concerns = !isKnown || [...keys].some((key) => this.#matches(key, view.get(key)));
      if (concerns) watcher.changed(keys, ours);
      isKnown = true;
    };
    const view = this.#informer.view(scope, { changed, failed: (error) => watcher.failed(error) }, { optional: true });
    return view;
  }

  /** Whether a change of this route is relevant: the route concerns us, or did at the last observation. */
  #matches(key: string, object: KubeObject | undefined): boolean {
    const looked = this.#looked;
    if (looked?.routes.some((one) => isAt(one, key, object))) return true;
    if (object === undefined) return false;
    return !looked || this.#rules.concern(looked.input, looked.own)(object);
  }

  #look(wanted: readonly Scope[]): void {
    const before = this.#behind;
    const behind = new Map<string, View>();
    for (const scope of wanted) {
      const id = idOf(scope);
      const view = behind.get(id) ?? before.get(id);
      behind.set(id, view ?? this.#informer.view(scope, this.#watcher, { optional: true }));
    }
    for (const [id, view] of before) if (!behind.has(id)) view[Symbol.dispose]();
    this.#behind = behind.size === 0 ? NOWHERE : behind;
  }
}

/** Without the spare capacity that `filter` leaves: 16 slots each. */
const exact = <T>(list: readonly T[]): readonly T[] => [...list];

const idOf = ({ resource, namespace, name }: Scope): string =>
  [resource.apiVersion, resource.plural, namespace, name].join('/');

const stateOf = ({ problem }: View): string => problem?.message ?? 'being listed';

function unseen(behind: readonly View[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const view of behind.filter(({ synced }) => !synced)) {
    const { namespace = '' } = view.scope;
    if (view.problem || !found.has(namespace)) found.set(namespace, stateOf(view));
  }
  return found;
}

function hidden(behind: readonly View[], kind: string, namespace: string | undefined): string | undefined {
  const covering = behind.filter(
    ({ scope }) => scope.resource.kind === kind && (scope.namespace === undefined || scope.namespace === namespace),
  );
  if (covering.length === 0) return 'not observed';
  const late = covering.find(({ synced }) => !synced);
  return late && stateOf(late);
}

/** Whether this is the current state under the key: equal to `object`, or absent. */
function isAt(one: KubeObject, key: string, object: KubeObject | undefined): boolean {
  if (!object) return keyOf(refOf(one)) === key;
  const { name, namespace } = one.metadata;
  return name === object.metadata.name && namespace === object.metadata.namespace && one.kind === object.kind;
}

interface RouteWriting {
  readonly kube: Kube;
  /** The kind of gateway whose route it is. */
  readonly gateway: string;
  readonly batchGap: BatchGap;
  readonly fence: Fence;
}

/**
 * Sets the fields of a change on a route and nothing else. Conditional on the version that was judged: a route that has
 * changed or was deleted since is a conflict, never a new object.
 */
export async function applyChange(
  route: KubeObject,
  { fields, fieldManager }: RouteChange,
  { kube, gateway, batchGap, fence }: RouteWriting,
  signal: AbortSignal,
): Promise<void> {
  const { name, namespace } = route.metadata;
  const { apiVersion, kind } = route;
  const turn = await batchGap.beforeGateway(gateway, signal);
  try {
    fence.check();
    await kube.apply(
      {
        ...fields,
        apiVersion,
        kind,
        metadata: { name, ...(namespace && { namespace }), ...preconditionOf(route) },
      },
      { fieldManager },
      signal,
    );
  } finally {
    turn[Symbol.dispose]();
  }
}
