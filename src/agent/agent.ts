import { setMaxListeners } from 'node:events';
import type { AllowList } from '../config/allow.ts';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import type { KubeObject } from '../core/object.ts';
import type { Preflight } from '../core/preflight.ts';
import { Bundles } from '../gateway/publication-reader.ts';
import type { Kube } from '../kube/api.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';
import { sharing } from '../mesh/sharing.ts';
import { ApiAudiences } from './api-audiences.ts';
import { watchClock } from './clock-watch.ts';
import { Discovery } from './discovery.ts';
import type { Leadership } from './leadership.ts';
import { Observer, type ObserverOptions } from './observer.ts';
import { Precedence } from './precedence.ts';
import { Registry } from './registry.ts';
import { Reporter, type Sink } from './reporter.ts';
import { Spacings } from './spacing.ts';
import { startSweeps } from './sweep.ts';

/** What is wished, now and at each change: from a file or from custom resources. */
export type Wishes = (signal: AbortSignal) => AsyncIterable<readonly MeshCertificate[]>;

export interface AgentOptions {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly wishes: Wishes;
  readonly leadership: Leadership;
  readonly sinks: readonly Sink[];
  readonly clock: Clock;
  /** Judges by its own time, so it belongs to the clock. */
  readonly preflight: Preflight;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly log: Log;
  readonly observe: Pick<ObserverOptions, 'by' | 'namespaces'>;
  /** Shared with sinks that write; default: one of its own. */
  readonly precedence?: Precedence | undefined;
  readonly dryRun?: boolean;
  /** Directories below which a MeshCertificate may name files; absent: any. */
  readonly filesBelow?: readonly string[] | undefined;
  /** What MeshCertificates may make the agent do; absent: everything. */
  readonly allow?: AllowList | undefined;
  /** Between Secrets and the gateway's objects; twice the gateway's batch window. Default 2 s. */
  readonly spacingMs?: number;
}

/** The agent: one worker for each MeshCertificate, over shared watches, one leadership and one sweep. */
export class Agent {
  readonly registry: Registry;
  readonly #options: AgentOptions;
  readonly #observer: Observer;
  readonly #discovery: Discovery;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { kube, adapters, leadership, sinks, clock, random, log } = options;
    const onError = (error: Error) => log.warn({ err: error }, 'a watch failed; it is opened again');
    const spacings = new Spacings(clock, options.spacingMs);
    const seen = (object: KubeObject) => spacings.of(object.metadata.namespace ?? '').saw(object);
    this.#observer = new Observer({ kube, clock, random, log, onError, seen, ...options.observe });
    this.#discovery = new Discovery({ kube, clock, random, log });
    this.registry = new Registry(adapters, {
      kube,
      clock,
      preflight: options.preflight,
      random,
      log,
      leadership,
      observer: this.#observer,
      discovery: this.#discovery,
      share: sharing(),
      bundles: new Bundles(),
      fleet: () => this.registry.size,
      spacings,
      precedence: options.precedence ?? new Precedence(clock),
      reporter: new Reporter(sinks),
      dryRun: options.dryRun ?? false,
      filesBelow: options.filesBelow,
      allow: options.allow,
      apiAudiences: new ApiAudiences(kube, clock),
    });
    leadership.onChange(() => this.registry.poke());
  }

  /** Why the cluster cannot be followed now, for /readyz. */
  get problem(): Error | undefined {
    return this.#observer.problem;
  }

  /** Compares everything with everything: lists again and lets each worker look again. */
  sweep(): void {
    this.#observer.resync();
    this.#discovery.resync();
    this.registry.poke();
  }

  /** Runs until the signal, then ends the workers; what they published stays. */
  async run(signal: AbortSignal): Promise<void> {
    const { wishes, leadership, clock, log } = this.#options;
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    setMaxListeners(0, either);
    await using _sweeps = startSweeps({ log, leads: () => leadership.held.length > 0, sweep: () => this.sweep() });
    const parts = [
      this.#follow(wishes, either),
      leadership.run(either),
      watchClock(
        clock,
        (ms) => {
          log.warn({ stepMs: ms }, 'the clock was stepped or the machine was suspended; every schedule is looked at');
          this.registry.poke();
        },
        either,
      ),
    ];
    try {
      await Promise.all(parts);
    } catch (error) {
      failed.abort(error);
      if (!signal.aborted) throw error;
    } finally {
      failed.abort(new Error('agent ended'));
      await Promise.allSettled(parts);
      await this.registry.close();
    }
  }

  async #follow(wishes: Wishes, signal: AbortSignal): Promise<void> {
    for await (const wished of wishes(signal)) await this.registry.reconcile(wished);
  }
}
