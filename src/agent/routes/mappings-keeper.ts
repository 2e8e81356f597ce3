import { retryDelay } from '../../core/backoff.ts';
import { describe, keyOf, refOf } from '../../core/object.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import {
  judgeMappings,
  type MappingVerdict,
  neededTargets,
  ownNames,
  type Target,
  type TargetSpec,
} from '../../gateway/targets.ts';
import { KubeError } from '../../kube/transport/error.ts';
import { codeOf } from '../../mesh/error.ts';
import type { Targeting, TargetRules } from '../../mesh/targeting.ts';
import type { Watcher } from '../informers/by-kind.ts';
import type { Fence } from '../publish/publisher.ts';
import type { ContextUser, MappingKeeperOptions, MappingKeeping, MappingState } from './mappings-contract.ts';
import { Sight } from './mappings-sight.ts';
import { applyTls } from './mappings-write.ts';

interface Failure {
  /** Absent while it may be a race with somebody else's write. */
  readonly error: Error | undefined;
  readonly attempts: number;
  /** Monotonic milliseconds. */
  readonly retryAt: number;
}

/** The Mapping has changed or gone since it was judged: the watch is about to say so. */
const RACES: ReadonlySet<string> = new Set(['ERR_KUBE_CONFLICT', 'ERR_KUBE_NOT_FOUND']);
/** So many in a row are no race but, say, another manager of the same field. */
const SUSPICIOUS_RACES = 4;

/** Nothing goes on: one promise for a thousand keepers. */
const OVER = Promise.resolve();

export class MappingKeeper implements MappingKeeping, Watcher {
  readonly #options: MappingKeeperOptions;
  #sight: Sight | undefined;
  #rules: TargetRules | undefined;
  #verdicts: readonly MappingVerdict[] = [];
  /** Names of our contexts. */
  #standing: readonly string[] = [];
  #targets: readonly Target[] = [];
  #users: readonly ContextUser[] = [];
  #failures: Map<string, Failure> | undefined;
  /** The version of each Mapping that a write was based on, until the watch shows what became of it. */
  #applied: Map<string, string | undefined> | undefined;
  #running: AbortSignal | undefined;
  #syncing: Promise<void> = Promise.resolve();
  #told = '';

  constructor(options: MappingKeeperOptions) {
    this.#options = options;
    if (!options.targeting) {
      this.#targets = neededTargets(this.#wish(), {
        mappings: [],
        services: [],
        endpointSlices: [],
        pods: [],
        contexts: [],
      });
    }
  }

  get complete(): boolean {
    return this.#sight?.complete === true && (!this.#options.targeting || this.#rules !== undefined);
  }

  targets(): readonly Target[] {
    return this.#targets;
  }

  states(): readonly MappingState[] {
    return this.#verdicts.map((verdict) => this.#state(verdict));
  }

  users(): readonly ContextUser[] {
    return this.#users;
  }

  run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return OVER;
    const { discovery, meta, targeting } = this.#options;
    this.#running = signal;
    this.#sight = new Sight(discovery, this, {
      namespace: meta.namespace,
      mappingNamespaces: this.#namespaces(),
      owner: ownerLabel(meta),
    });
    signal.addEventListener('abort', this, { once: true });
    this.#judge();
    return targeting ? this.#followRules(targeting, signal) : OVER;
  }

  /** The signal was aborted. */
  handleEvent(): void {
    this.#sight?.[Symbol.dispose]();
    this.#sight = undefined;
  }

  changed(): void {
    this.#judge();
  }

  failed(error: Error): void {
    this.#options.onError?.(error);
    this.#judge();
  }

  sync(signal: AbortSignal, fence?: Pick<Fence, 'check'>): Promise<void> {
    const next = this.#syncing.then(() => this.#sync(signal, fence));
    this.#syncing = next.catch(() => {});
    return next;
  }

  async #sync(signal: AbortSignal, fence: Pick<Fence, 'check'> | undefined): Promise<void> {
    for (const verdict of this.#verdicts) {
      if (!this.complete || this.#options.dryRun) return;
      const contextName = this.#due(verdict);
      if (contextName === undefined) continue;
      const { mapping } = verdict;
      const key = keyOf(refOf(mapping));
      try {
        await applyTls(mapping, contextName, { ...this.#options, fence }, signal);
        this.#applied ??= new Map();
        this.#applied.set(key, mapping.metadata.resourceVersion);
        this.#failures?.delete(key);
      } catch (error) {
        if (signal.aborted || !(error instanceof KubeError)) throw error;
        this.#failed(key, error);
      }
    }
    this.#tell();
  }

  /** The context that a Mapping is to name now. */
  #due({ mapping, selected, named, outcome }: MappingVerdict): string | undefined {
    if (!selected || !('target' in outcome)) return undefined;
    const { contextName } = outcome.target;
    const key = keyOf(refOf(mapping));
    const isWritten = this.#applied?.has(key) && this.#applied.get(key) === mapping.metadata.resourceVersion;
    const isEarly = this.#options.clock.monotonic() < (this.#failures?.get(key)?.retryAt ?? 0);
    return named === contextName || isWritten || isEarly || !this.#standing.includes(contextName)
      ? undefined
      : contextName;
  }

  #judge(): void {
    const sight = this.#sight;
    if (!sight || (this.#options.targeting && !this.#rules)) return;
    const wish = this.#wish();
    const world = sight.world(wish);
    this.#standing = world.contexts.map((context) => context.metadata.name).sort();
    this.#verdicts = judgeMappings(wish, world);
    this.#targets = neededTargets(wish, world, this.#verdicts);
    const ours = ownNames(wish, world.contexts);
    this.#users = this.#verdicts.flatMap(({ mapping, named }) =>
      named !== undefined && ours.has(named) ? [{ mapping: describe(refOf(mapping)), contextName: named }] : [],
    );
    const seen = new Set(this.#verdicts.map(({ mapping }) => keyOf(refOf(mapping))));
    for (const notes of [this.#failures, this.#applied]) {
      for (const key of notes?.keys() ?? []) if (!seen.has(key)) notes?.delete(key);
    }
    this.#tell();
  }

  /** Tells when something is different that the caller acts on or shows. */
  #tell(): void {
    const now = JSON.stringify([this.complete, this.#targets, this.states(), this.#users, this.#standing]);
    if (now === this.#told) return;
    this.#told = now;
    this.#options.onChange();
  }

  #failed(key: string, error: KubeError): void {
    const { clock, random, onError, onChange } = this.#options;
    const attempts = (this.#failures?.get(key)?.attempts ?? 0) + 1;
    const wait = retryDelay(attempts, random);
    const isRace = RACES.has(error.code) && attempts < SUSPICIOUS_RACES;
    this.#failures ??= new Map();
    this.#failures.set(key, { error: isRace ? undefined : error, attempts, retryAt: clock.monotonic() + wait });
    if (!isRace) onError?.(error);
    clock.sleep(wait, this.#running).then(onChange, () => {});
  }

  async #followRules(targeting: Targeting, signal: AbortSignal): Promise<void> {
    const { clock, random, onError } = this.#options;
    for (let failures = 0; !signal.aborted; ) {
      try {
        for await (const rules of targeting.targets(signal)) {
          failures = 0;
          this.#rules = rules;
          this.#judge();
        }
      } catch (error) {
        if (signal.aborted) return;
        onError?.(error instanceof Error ? error : new Error(String(error)));
      }
      failures++;
      await clock.sleep(retryDelay(failures, random), signal).catch(() => {});
    }
  }

  #wish(): TargetSpec {
    const { tlsContext, mappings } = this.#options.spec;
    return {
      namespace: this.#options.meta.namespace,
      contextName: tlsContext.name,
      sni: tlsContext.sni,
      ambassadorIds: tlsContext.ambassadorIds,
      selector: mappings?.selector.matchLabels,
      rules: this.#rules,
    };
  }

  #namespaces(): readonly string[] | undefined {
    const { meta, spec } = this.#options;
    const listed = spec.mappings?.namespaces ?? [meta.namespace];
    return listed.includes('*') ? undefined : listed;
  }

  #state({ mapping, service, selected, named, outcome }: MappingVerdict): MappingState {
    const { name, namespace = '' } = mapping.metadata;
    const target = 'target' in outcome ? outcome.target : undefined;
    const isSet = target !== undefined && named === target.contextName;
    const failure = isSet ? undefined : this.#failures?.get(keyOf(refOf(mapping)))?.error;
    const refusal = 'code' in outcome ? outcome : undefined;
    const isUnseen = refusal?.code === 'ERR_TARGET_UNSEEN';
    const code =
      isUnseen && !this.complete ? undefined : (refusal?.code ?? (failure && codeOf(failure, 'ERR_PUBLISH')));
    return {
      kind: mapping.kind,
      namespace,
      name,
      service,
      context: target?.contextName ?? named,
      sni: target?.sni,
      state: !selected ? 'named' : isSet ? 'set' : target || isUnseen ? 'waiting' : 'left',
      code,
      message: refusal?.message ?? failure?.message,
    };
  }
}
