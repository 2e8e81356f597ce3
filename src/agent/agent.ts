import { setMaxListeners } from 'node:events';
import { Semaphore } from '../async/limits.ts';
import { sharing } from '../async/sharing.ts';
import type { Allowed, AllowList } from '../config/allow.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { Preflight } from '../core/preflight.ts';
import type { Gateway } from '../gateway/gateway.ts';
import { Bundles } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Runtime } from '../mesh/log.ts';
import type { KubeObject } from '../objects/objects.ts';
import { type Leadership, leadsSomething } from './election.ts';
import { Informer, ObjectInformer, type ObjectInformerOptions } from './informers.ts';
import { Reconcilers } from './reconcilers.ts';
import { Reporter, type Sink } from './reporter.ts';
import { resyncRegularly, watchClock } from './resync.ts';
import { BatchGaps, type WritePriority } from './write-order.ts';

/** The desired MeshCertificates, now and at each change: from a file or from custom resources. */
export type CertificateSource = (signal: AbortSignal) => AsyncIterable<readonly MeshCertificate[]>;

/** A name that resolves slowly occupies one of the four threads that Node.js has for names, files and keys. */
const HANDSHAKES_AT_ONCE = 2;

export interface AgentOptions extends Runtime {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly Gateway[];
  readonly certificates: CertificateSource;
  readonly leadership: Leadership;
  readonly sinks: readonly Sink[];
  /** Judges by its own time, so it belongs to the clock. */
  readonly preflight: Preflight;
  readonly observe: Pick<ObjectInformerOptions, 'by' | 'namespaces'>;
  /** Shared with sinks that write. */
  readonly writePriority: WritePriority;
  /** The API server validates each write and stores none. */
  readonly dryRun: boolean;
  /** Directories below which a MeshCertificate may name files. */
  readonly filesBelow: Allowed;
  /** What MeshCertificates may make the agent do. */
  readonly allow: AllowList;
  /** Between Secrets and the gateway's objects; absent: each gateway's own gap. */
  readonly batchGapMs?: number | undefined;
}

/** The agent: one reconciler for each MeshCertificate, over shared informers, one leadership and one resync. */
export class Agent {
  readonly reconcilers: Reconcilers;
  readonly #options: AgentOptions;
  readonly #objectInformers: ObjectInformer;
  readonly #sharedInformers: Informer;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { kube, adapters, leadership, sinks, clock, random, log } = options;
    const { by, namespaces } = options.observe;
    const batchGaps = new BatchGaps(clock, options.gateways, options.batchGapMs);
    const seen = (object: KubeObject) => batchGaps.of(object.metadata.namespace ?? '').saw(object);
    const kinds = options.gateways.flatMap(({ resources }) => resources);
    this.#objectInformers = new ObjectInformer({ kube, clock, random, log, by, namespaces, seen, kinds });
    this.#sharedInformers = new Informer({ kube, clock, random, log });
    this.reconcilers = new Reconcilers(adapters, {
      kube,
      clock,
      preflight: options.preflight,
      random,
      log,
      leadership,
      objectInformers: this.#objectInformers,
      sharedInformers: this.#sharedInformers,
      share: sharing(),
      bundles: new Bundles(),
      fleet: () => this.reconcilers.size,
      batchGaps,
      createdSecrets: new Set(),
      gateways: options.gateways,
      writePriority: options.writePriority,
      reporter: new Reporter(sinks),
      dryRun: options.dryRun,
      filesBelow: options.filesBelow,
      allow: options.allow,
      handshakes: new Semaphore(HANDSHAKES_AT_ONCE),
    });
    leadership.onChange(() => this.reconcilers.poke());
  }

  /** Why the cluster cannot be followed now, for /readyz. */
  get problem(): Error | undefined {
    return this.#objectInformers.problem;
  }

  /** Lists everything again and triggers every reconciler. */
  resync(): void {
    this.#objectInformers.resync();
    this.#sharedInformers.resync();
    this.reconcilers.poke();
  }

  /** Runs until the signal, then stops the reconcilers; what they published stays. */
  async run(signal: AbortSignal): Promise<void> {
    const { certificates, leadership, clock, log } = this.#options;
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    setMaxListeners(0, either);
    const parts = [
      this.#follow(certificates, either),
      leadership.run(either),
      watchClock(
        clock,
        (ms) => {
          log.warn({ stepMs: ms }, 'the clock was stepped or the machine was suspended; all schedules are checked');
          this.reconcilers.poke();
        },
        either,
      ),
      resyncRegularly(
        {
          clock,
          log,
          leads: () => leadsSomething(leadership),
          resync: () => this.resync(),
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
      await this.reconcilers.close();
    }
  }

  async #follow(certificates: CertificateSource, signal: AbortSignal): Promise<void> {
    for await (const desired of certificates(signal)) await this.reconcilers.reconcile(desired);
  }
}
