import { retryDelay } from '../core/backoff.ts';
import { type KubeObject, keyOf, OWNER_LABEL, refOf } from '../core/object.ts';
import { ownerLabel } from '../gateway/owner.ts';
import { judgeMappings, type MappingVerdict, neededTargets, type Target, type TargetWish } from '../gateway/targets.ts';
import type { TargetRules } from '../mesh/targeting.ts';
import type { MappingKeeperOptions, MappingKeeping, MappingState } from './mappings-contract.ts';
import { Sight } from './mappings-sight.ts';
import { applyTls, releaseMappings } from './mappings-write.ts';

interface Failure {
  readonly error: Error;
  readonly attempts: number;
  /** Monotonic milliseconds. */
  readonly retryAt: number;
}

export class MappingKeeper implements MappingKeeping {
  readonly #options: MappingKeeperOptions;
  #sight: Sight | undefined;
  #rules: TargetRules | undefined;
  #verdicts: readonly MappingVerdict[] = [];
  #standing: ReadonlySet<string> = new Set();
  #targets: readonly Target[] = [];
  #failures = new Map<string, Failure>();
  /** The version of each Mapping that a write was based on, until the watch shows what became of it. */
  #applied = new Map<string, string | undefined>();
  #running: AbortSignal | undefined;
  #syncing: Promise<void> = Promise.resolve();
  #released = false;
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

  async run(signal: AbortSignal): Promise<void> {
    const { discovery, meta, onError } = this.#options;
    const failed = (error: Error) => {
      onError?.(error);
      this.#judge();
    };
    const watcher = { changed: () => this.#judge(), failed };
    const owner = ownerLabel(meta);
    const isOurs = (context: KubeObject) => context.metadata.labels?.[OWNER_LABEL] === owner;
    this.#running = signal;
    this.#sight = new Sight(discovery, watcher, {
      namespace: meta.namespace,
      mappingNamespaces: this.#namespaces(),
      isOurs,
    });
    try {
      this.#judge();
      await this.#followRules(signal);
    } finally {
      this.#sight[Symbol.dispose]();
      this.#sight = undefined;
    }
  }

  sync(signal: AbortSignal): Promise<void> {
    const next = this.#syncing.then(() => this.#sync(signal));
    this.#syncing = next.catch(() => {});
    return next;
  }

  async #sync(signal: AbortSignal): Promise<void> {
    for (const verdict of this.#verdicts) {
      if (!this.complete || this.#released || this.#options.dryRun) return;
      const contextName = this.#due(verdict);
      if (contextName === undefined) continue;
      const { mapping } = verdict;
      const key = keyOf(refOf(mapping));
      try {
        await applyTls(mapping, contextName, this.#options, signal);
        this.#applied.set(key, mapping.metadata.resourceVersion);
        this.#failures.delete(key);
      } catch (error) {
        if (signal.aborted) throw error;
        this.#failed(key, error instanceof Error ? error : new Error(String(error)));
      }
    }
    this.#tell();
  }

  /** The context that a Mapping is to name now. */
  #due({ mapping, selected, named, outcome }: MappingVerdict): string | undefined {
    if (!selected || !('target' in outcome)) return undefined;
    const { contextName } = outcome.target;
    const key = keyOf(refOf(mapping));
    const isWritten = this.#applied.get(key) === mapping.metadata.resourceVersion && this.#applied.has(key);
    const isEarly = this.#options.clock.monotonic() < (this.#failures.get(key)?.retryAt ?? 0);
    return named === contextName || isWritten || isEarly || !this.#standing.has(contextName) ? undefined : contextName;
  }

  async release(signal: AbortSignal): Promise<number> {
    this.#released = true;
    await this.#syncing;
    const names = new Set([...this.#standing, ...this.#targets.map((target) => target.contextName)]);
    return releaseMappings(this.#options, this.#namespaces(), (name) => names.has(name), signal);
  }

  #judge(): void {
    const sight = this.#sight;
    if (!sight || (this.#options.targeting && !this.#rules)) return;
    const wish = this.#wish();
    const world = sight.world(wish);
    this.#standing = new Set(world.contexts.map((context) => context.metadata.name));
    this.#verdicts = judgeMappings(wish, world);
    this.#targets = neededTargets(wish, world, this.#verdicts);
    const seen = new Set(this.#verdicts.map(({ mapping }) => keyOf(refOf(mapping))));
    for (const of of [this.#failures, this.#applied]) for (const key of of.keys()) if (!seen.has(key)) of.delete(key);
    this.#tell();
  }

  /** Tells when something is different that the caller acts on or shows. */
  #tell(): void {
    const now = JSON.stringify([this.complete, this.#targets, this.states(), [...this.#standing].sort()]);
    if (now === this.#told) return;
    this.#told = now;
    this.#options.onChange();
  }

  #failed(key: string, error: Error): void {
    const { clock, random, onError, onChange } = this.#options;
    const attempts = (this.#failures.get(key)?.attempts ?? 0) + 1;
    const wait = retryDelay(attempts, random);
    this.#failures.set(key, { error, attempts, retryAt: clock.monotonic() + wait });
    onError?.(error);
    clock.sleep(wait, this.#running).then(onChange, () => {});
  }

  async #followRules(signal: AbortSignal): Promise<void> {
    const { targeting, clock, random, onError } = this.#options;
    if (!targeting) return aborted(signal);
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

  #wish(): TargetWish {
    const { tlsContext, mappings } = this.#options.spec;
    return {
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
    const failure = isSet ? undefined : this.#failures.get(keyOf(refOf(mapping)))?.error;
    const refusal = 'code' in outcome ? outcome : undefined;
    const isUnseen = refusal?.code === 'ERR_TARGET_UNSEEN';
    const code = isUnseen && !this.complete ? undefined : (refusal?.code ?? (failure && codeOf(failure)));
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

function codeOf(error: Error): string {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? code : 'ERR_PUBLISH';
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
