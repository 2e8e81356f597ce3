import { followed } from '../../async/retrying.ts';
import { retryDelay } from '../../core/backoff.ts';
import { describe, keyOf, refOf } from '../../core/object.ts';
import type { ObservedObjects, RouteJudgement, RouteState, RouteVerdict } from '../../gateway/gateway.ts';
import type { RouteInput } from '../../gateway/input.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import { KubeError } from '../../kube/transport/error.ts';
import { codeOf, MeshError } from '../../mesh/error.ts';
import type { Targeting, TargetRules } from '../../mesh/targeting.ts';
import type { Watcher } from '../informers/by-kind.ts';
import type { Fence } from '../publish/publisher.ts';
import type { RouteKeeperOptions, RouteKeeping, RouteUser } from './contract.ts';
import { RouteInformer } from './route-informer.ts';
import { applyChange } from './write.ts';

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

const NOTHING: ObservedObjects = {
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
  #informer: RouteInformer | undefined;
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
    if (!targeting) this.#judged = gateway.routes.judge(this.#input, NOTHING);
  }

  get complete(): boolean {
    return this.#informer?.complete === true && (!this.#options.targeting || this.#rules !== undefined);
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
    this.#informer = new RouteInformer(
      sharedInformers,
      this,
      gateway.routes,
      this.#input,
      ownerLabel(this.#input.meta),
    );
    signal.addEventListener('abort', this, { once: true });
    this.#judge();
    return targeting ? this.#followRules(targeting, signal) : OVER;
  }

  /** The signal was aborted. */
  handleEvent(): void {
    this.#informer?.[Symbol.dispose]();
    this.#informer = undefined;
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
    const informer = this.#informer;
    if (!informer || (this.#options.targeting && !this.#rules)) return;
    const input = { ...this.#input, rules: this.#rules };
    const observed = informer.observe(input);
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
    return {
      kind: route.kind,
      namespace,
      name,
      service,
      object: target?.object.name ?? uses,
      id: target?.id,
      state: !selected ? 'named' : isSet ? 'set' : target || isUnseen ? 'waiting' : 'left',
      code,
      message: refusal?.message ?? failure?.message,
      ...(isSet && upstreams ? { upstreams } : {}),
    };
  }
}
