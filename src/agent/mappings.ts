import { retryDelay } from '../core/backoff.ts';
import { type KubeObject, keyOf, OWNER_LABEL, refOf } from '../core/object.ts';
import { ownerLabel } from '../gateway/owner.ts';
import { judgeMappings, type MappingVerdict, neededTargets, type Target, type TargetWish } from '../gateway/targets.ts';
import type { Kube } from '../kube/api.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';
import type { Targeting, TargetRules } from '../mesh/targeting.ts';
import type { Discovery } from './discovery.ts';
import { Sight } from './mappings-sight.ts';
import { applyTls, releaseMappings } from './mappings-write.ts';
import type { Spacing } from './spacing.ts';

/** What became of one Mapping; for status, events and the `Referenced` condition. */
export interface MappingState {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly service: string;
  /** The context that its `spec.tls` names, or shall name. */
  readonly context?: string | undefined;
  readonly sni?: string | undefined;
  /**
   * `set`: names its context. `waiting`: will, once its TLSContext stands. `left`: selected but left alone, `code`
   * and `message` say why. `named`: not selected, but names one of our contexts.
   */
  readonly state: 'set' | 'waiting' | 'left' | 'named';
  readonly code?: string | undefined;
  readonly message?: string | undefined;
}

export interface MappingKeeperOptions {
  readonly kube: Kube;
  /** Shared by all keepers of an agent. */
  readonly discovery: Discovery;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Judge and report, write nothing. */
  readonly dryRun?: boolean | undefined;
  readonly meta: { readonly name: string; readonly namespace: string };
  readonly spec: {
    readonly tlsContext: {
      readonly name: string;
      readonly sni?: string | undefined;
      readonly ambassadorIds: readonly string[];
    };
    readonly mappings?:
      | {
          readonly selector: { readonly matchLabels: Readonly<Record<string, string>> };
          /** Where Mappings are looked for; absent: the MeshCertificate's own namespace; `['*']`: all. */
          readonly namespaces?: readonly string[] | undefined;
        }
      | undefined;
  };
  /** The opened adapter when it has the skill (`isTargeting`); absent: one context serves the mesh. */
  readonly targeting?: Targeting | undefined;
  /** Of the gateway: shared with whoever writes its Secrets. */
  readonly spacing: Spacing;
  /** Targets, states or what `sync` can do have changed. Called often and synchronously. */
  onChange(): void;
  /** A watch or a write failed and is tried again; for status and metrics. */
  onError?(error: Error): void;
}

/**
 * Keeps `spec.tls` of Mappings right. The caller publishes `targets()` as TLSContexts, calls `sync` after each
 * change, and retires those of its contexts that `targets()` does not mention once it is `complete`.
 */
export interface MappingKeeping {
  /** Everything was listed once and the mesh's rules are known. Until then a missing target proves nothing. */
  readonly complete: boolean;
  /** The contexts that must stand, as far as is known; sorted by name. */
  targets(): readonly Target[];
  states(): readonly MappingState[];
  /** Sets `spec.tls` where its context stands. No change, no write; safe to call at any time. */
  sync(signal: AbortSignal): Promise<void>;
  /** Watches until the signal; never throws for a failed watch. */
  run(signal: AbortSignal): Promise<void>;
  /** Gives back each `spec.tls` that we set, and sets none any more: for offboarding. Returns how many. */
  release(signal: AbortSignal): Promise<number>;
}

export function keepMappings(options: MappingKeeperOptions): MappingKeeping {
  return new MappingKeeper(options);
}

interface Failure {
  readonly error: Error;
  readonly attempts: number;
  /** Monotonic milliseconds. */
  readonly retryAt: number;
}

class MappingKeeper implements MappingKeeping {
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
    const watcher = { changed: () => this.#judge(), failed: (error: Error) => onError?.(error) };
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
  return typeof code === 'string' ? code : 'ERR_TARGET_WRITE';
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
