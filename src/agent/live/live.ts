import type { Clock } from '../../async/clock.ts';
import { Trigger } from '../../async/trigger.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { KubeObject } from '../../core/object.ts';
import type { PublicationStatus } from '../../core/status.ts';
import type { Kube } from '../../kube/api.ts';
import type { Log } from '../../mesh/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Passed } from '../report/report.ts';
import type { Amend, Sink } from '../report/reporter.ts';
import type { StatusRecord } from '../report/status-record.ts';
import { type ExpectedFiles, expectedFiles, type JudgedContext, judgeAnswer, worstOf } from './answer.ts';
import { liveCondition } from './condition.ts';
import { nudge } from './nudge.ts';
import { askGateway } from './request.ts';

export interface LiveOptions {
  /** Emissary's diagnostics, Envoy's admin interface, or both. */
  readonly urls: readonly URL[];
  readonly kube: Kube;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'live' | 'liveLag'>;
  readonly signal: AbortSignal;
}

/** While something is awaited: well below the second that a gateway needs at least for a batch, times two. */
const EAGER_MS = 2_000;
/** When all has arrived: a gateway that restarts on old files is found within a minute. */
const CALM_MS = 60_000;
/** A rotation that arrives within this is no news: validation of a large configuration takes tens of seconds. */
const GRACE_MS = 30_000;
/** Old files longer than this after a publication are not a matter of patience any more. Then again, twice. */
const NUDGE_AFTER_MS = [15_000, 75_000, 375_000] as const;

interface Awaited {
  certificate: MeshCertificate;
  readonly mesh: string;
  readonly expected: ExpectedFiles;
  readonly contexts: readonly KubeObject[];
  /** Monotonic: since when it stands; undefined where it stood before we looked. */
  readonly since: number | undefined;
  readonly seenAt: number;
  arrived: boolean;
  nudges: number;
}

/** Asks the gateway whether what stands in the cluster is what it uses: condition Live, its metrics, and the nudge. */
export class LiveSink implements Sink {
  readonly #options: LiveOptions;
  readonly #awaited = new Map<StatusRecord, Awaited>();
  readonly #news = new Trigger();
  #amend: Amend | undefined;
  #running = false;

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  attach(amend: Amend): void {
    this.#amend = amend;
  }

  status(status: PublicationStatus, before: PublicationStatus | undefined, report: Passed, told: StatusRecord): void {
    const { certificate, decision, inForce, leading, dryRun } = report;
    if (!leading || dryRun) {
      this.#awaited.delete(told);
      return;
    }
    if (!decision) return;
    const desired = inForce ? (decision.desired ?? []) : [];
    const expected = expectedFiles(certificate.spec, desired);
    if (!expected) return;
    const known = this.#awaited.get(told);
    if (known && known.expected.file === expected.file && known.expected.caFile === expected.caFile) {
      known.certificate = certificate;
      return;
    }
    const now = this.#options.clock.monotonic();
    this.#awaited.set(told, {
      certificate,
      mesh: status.mesh,
      expected,
      contexts: desired.map(({ object }) => object).filter(({ kind }) => kind === 'TLSContext'),
      since: known || before?.fingerprint !== status.fingerprint ? now : undefined,
      seenAt: now,
      arrived: false,
      nudges: 0,
    });
    this.#news.fire();
    if (!this.#running) void this.#run();
  }

  forget(_certificate: MeshCertificate, told: StatusRecord | undefined): void {
    if (told) this.#awaited.delete(told);
  }

  async #run(): Promise<void> {
    const { clock, signal, log } = this.#options;
    this.#running = true;
    try {
      while (!signal.aborted && this.#awaited.size > 0) {
        await this.#look();
        const calm = [...this.#awaited.values()].every(({ arrived }) => arrived);
        await this.#news.waitFor(calm ? CALM_MS : EAGER_MS, clock, signal);
      }
    } catch (error) {
      if (!signal.aborted)
        log.error({ err: error }, 'checking the gateway ended; the next publication starts it again');
    } finally {
      this.#running = false;
    }
  }

  async #look(): Promise<void> {
    const { urls, clock, signal } = this.#options;
    const answers = await Promise.all(urls.map((url) => askGateway(url, clock, signal)));
    for (const [told, awaited] of [...this.#awaited]) {
      const judged: JudgedContext[] = [];
      const failures: string[] = [];
      for (const answer of answers) {
        try {
          if ('failure' in answer) failures.push(answer.failure);
          else judged.push(judgeAnswer(answer.body, awaited.expected));
        } catch (error) {
          failures.push(error instanceof Error ? error.message : String(error));
        }
      }
      if (this.#awaited.get(told) === awaited)
        await this.#tell(awaited, worstOf(judged) ?? { failure: failures.join('; ') });
    }
  }

  async #tell(awaited: Awaited, found: JudgedContext | { readonly failure: string }): Promise<void> {
    const { clock, metrics } = this.#options;
    const { metadata } = awaited.certificate;
    const key = { namespace: metadata.namespace ?? '', name: metadata.name };
    const waitedMs = clock.monotonic() - awaited.seenAt;
    const arrival = 'failure' in found ? undefined : found.arrival;
    if (arrival === 'live' && !awaited.arrived && awaited.since !== undefined) {
      metrics.liveLag.observe({ mesh: awaited.mesh }, (clock.monotonic() - awaited.since) / 1000);
    }
    awaited.arrived = arrival === 'live';
    if (arrival !== 'live' && waitedMs < GRACE_MS && awaited.since !== undefined) {
      await this.#nudgeIfDue(awaited, arrival, waitedMs);
      return;
    }
    if (arrival === undefined) metrics.live.remove(key);
    else metrics.live.set(key, arrival === 'live' ? 1 : 0);
    const { generation } = metadata;
    this.#amend?.(
      awaited.certificate,
      {
        ...liveCondition(found, awaited.expected),
        ...(generation === undefined ? {} : { observedGeneration: generation }),
      },
      clock.now(),
    );
    await this.#nudgeIfDue(awaited, arrival, waitedMs);
  }

  async #nudgeIfDue(awaited: Awaited, arrival: JudgedContext['arrival'] | undefined, waitedMs: number): Promise<void> {
    const due = NUDGE_AFTER_MS[awaited.nudges];
    const [context] = awaited.contexts;
    if (arrival !== 'stale' || due === undefined || waitedMs < due || !context) return;
    awaited.nudges += 1;
    await nudge(context, `${awaited.expected.file.slice(0, 12)}.${awaited.nudges}`, this.#options);
  }
}
