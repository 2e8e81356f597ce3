import type { Clock } from '../../async/clock.ts';
import type { Target } from '../../gateway/targets.ts';
import type { Kube } from '../../kube/api.ts';
import type { Log } from '../../mesh/log.ts';
import type { Targeting } from '../../mesh/targeting.ts';
import type { SharedInformers } from '../informers/by-kind.ts';
import type { BatchGap } from '../publish/batch-gap.ts';
import type { Fence } from '../publish/publisher.ts';

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

/** A Mapping that names one of our contexts now, whether or not it is selected. */
export interface ContextUser {
  /** `Mapping shop/web`. */
  readonly mapping: string;
  readonly contextName: string;
}

export interface MappingKeeperOptions {
  readonly kube: Kube;
  /** Shared by all keepers of an agent. */
  readonly discovery: SharedInformers;
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
  readonly spacing: BatchGap;
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
  /** Who would lose its context if ours went; the same array until something is different. */
  users(): readonly ContextUser[];
  /**
   * Sets `spec.tls` where its context stands. No change, no write; safe to call at any time. The fence is asked
   * before each write, which may have to wait for its turn.
   */
  sync(signal: AbortSignal, fence?: Pick<Fence, 'check'>): Promise<void>;
  /** Watches until the signal; what it returns is over when nothing goes on after that. Never fails for a watch. */
  run(signal: AbortSignal): Promise<void>;
}
