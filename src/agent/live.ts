import { Readable } from 'node:stream';
import type { Clock } from '../async/clock.ts';
import { bounded } from '../async/limits.ts';
import { limitedTo } from '../async/linked-signal.ts';
import { Trigger } from '../async/trigger.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { Desired } from '../core/plan.ts';
import type { PublicationStatus } from '../core/status.ts';
import {
  type Arrival,
  type ExpectedLoad,
  type Gateway,
  gatewaysOf,
  type LiveCondition,
  type Loaded,
  type Loading,
  type LoadingEndpoint,
  type LoadingRequest,
  type Nudge,
  worstOf,
} from '../gateway/gateway.ts';
import type { Kube } from '../kube/api.ts';
import { lines } from '../kube/client.ts';
import { KubeError } from '../kube/transport/error.ts';
import { localCause } from '../mesh/error.ts';
import { type JsonLimits, parseJson } from '../mesh/input.ts';
import type { Log, Runtime } from '../mesh/log.ts';
import { describe } from '../objects/objects.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Informer, type View, type Watcher } from './informers.ts';
import type { Amend, ReconcileResult, ReportedStatus, Sink } from './reporter.ts';

interface LiveOptions extends Runtime {
  /** Each is asked for the gateways of its kind alone: another kind would misread the answer. */
  readonly endpoints: readonly LoadingEndpoint[];
  readonly gateways: readonly Gateway[];
  readonly kube: Kube;
  readonly metrics: Pick<Metrics, 'live' | 'liveLag'>;
  readonly signal: AbortSignal;
}

/** While a change is awaited: twice the second that a gateway needs at least for a batch. */
const EAGER_MS = 2_000;
/** When everything has arrived: a gateway that restarts with old files is found within a minute. */
const CALM_MS = 60_000;
/** What has not arrived by then arrives, if at all, by an action of a person: after the last nudge. */
const EAGER_FOR_MS = 420_000;
/** A rotation that arrives within this time is not reported: validating a large configuration takes tens of seconds. */
const GRACE_MS = 30_000;
/** Old files longer than this after a publication will not be replaced by waiting. Two more nudges follow. */
const NUDGE_AFTER_MS = [15_000, 75_000, 375_000] as const;
/** Where nothing shows what the data plane uses, one nudge for each publication makes up for a change that it missed. */
const BLIND_NUDGE_AFTER_MS = [GRACE_MS] as const;

/** What one gateway has to load of one publication. */
interface Awaited {
  certificate: MeshCertificate;
  readonly mesh: string;
  readonly kind: string;
  readonly loading: Loading;
  readonly expected: ExpectedLoad;
  desired: readonly Desired[];
  /** Views of the objects whose status shows what was loaded; empty for a gateway that only answers HTTP requests. */
  readonly views: readonly View[];
  /** Monotonic time since which it is published; undefined if it was published before this process observed it. */
  readonly since: number | undefined;
  /** Monotonic time since which this publication is awaited. */
  readonly awaitedSince: number;
  /** Monotonic time since which the gateway has not been seen to use what was published, whatever it was. */
  readonly lateSince: number;
  /** The last one; undefined before the first answer, and while nothing answers. */
  arrival: Arrival | undefined;
  nudges: number;
  /** The last finding, once it is worth reporting. */
  found: { readonly arrival: Arrival | undefined; readonly condition: LiveCondition } | undefined;
}

/** Checks whether the gateways use what is published: condition Live, its metrics, and the nudge. */
export class LiveSink implements Sink, Watcher {
  readonly #options: LiveOptions;
  readonly #informers: Informer;
  /** One for each gateway that can be checked. */
  readonly #awaited = new Map<ReportedStatus, readonly Awaited[]>();
  readonly #news = new Trigger();
  #amend: Amend | undefined;
  #running = false;

  constructor(options: LiveOptions) {
    this.#options = options;
    this.#informers = new Informer(options);
  }

  attach(amend: Amend): void {
    this.#amend = amend;
  }

  status(
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    report: ReconcileResult,
    reported: ReportedStatus,
  ): void {
    const { certificate, decision, inForce, leading, dryRun } = report;
    if (!leading || dryRun) {
      this.#drop(reported);
      return;
    }
    if (!decision) return;
    const desired = inForce ? (decision.desired ?? []) : [];
    const known = this.#awaited.get(reported);
    const wanted = this.#expected(certificate, desired);
    if (wanted.length === 0) return;
    if (
      known?.length === wanted.length &&
      wanted.every(({ expected }, at) => expected.digest === known[at]?.expected.digest)
    ) {
      for (const one of known) Object.assign(one, { certificate, desired });
      return;
    }
    const now = this.#options.clock.monotonic();
    const awaited = wanted.map(({ kind, loading, expected, scopes }) => {
      const late = known?.find((one) => one.kind === kind && one.arrival !== 'live');
      return {
        certificate,
        mesh: status.mesh,
        kind,
        loading,
        expected,
        desired,
        views: scopes.map((scope) => this.#informers.view(scope, this, { optional: true })),
        since: known || before?.fingerprint !== status.fingerprint ? now : undefined,
        awaitedSince: now,
        lateSince: late?.lateSince ?? now,
        arrival: undefined,
        nudges: late?.arrival === 'stale' ? late.nudges : 0,
        found: undefined,
      };
    });
    // After the new views are open, so that what they share stays.
    this.#drop(reported);
    this.#awaited.set(reported, awaited);
    this.#news.fire();
    if (!this.#running) void this.#run();
  }

  forget(_certificate: MeshCertificate, reported: ReportedStatus | undefined): void {
    if (reported) this.#drop(reported);
  }

  /** A watched status has changed. */
  changed(): void {
    this.#news.fire();
  }

  failed(error: Error): void {
    this.#options.log.warn({ err: error }, 'the status of the gateway could not be watched; it is tried again');
  }

  #expected(certificate: MeshCertificate, desired: readonly Desired[]) {
    const { name, namespace = '', uid } = certificate.metadata;
    const { spec } = certificate;
    return gatewaysOf(spec, this.#options.gateways).flatMap(({ gateway: { kind, loading }, config }) => {
      const input = { meta: { name, namespace, uid }, spec, config };
      const isAsked = this.#options.endpoints.some((endpoint) => endpoint.kind === kind);
      const expected = isAsked || loading?.statuses ? loading?.expected(input, desired) : undefined;
      return loading && expected ? [{ kind, loading, expected, scopes: loading.statuses?.scopes(input) ?? [] }] : [];
    });
  }

  #drop(reported: ReportedStatus): void {
    for (const { views } of this.#awaited.get(reported) ?? []) for (const view of views) view[Symbol.dispose]();
    this.#awaited.delete(reported);
  }

  async #run(): Promise<void> {
    const { clock, signal, log } = this.#options;
    this.#running = true;
    try {
      while (!signal.aborted && this.#awaited.size > 0) {
        await this.#look();
        const calm = [...this.#awaited.values()].flat().every((one) => this.#isCalm(one));
        await this.#news.waitFor(calm ? CALM_MS : EAGER_MS, clock, signal);
      }
    } catch (error) {
      if (!signal.aborted)
        log.error({ err: error }, 'checking the gateway ended; the next publication starts it again');
    } finally {
      this.#running = false;
    }
  }

  #isCalm({ arrival, awaitedSince }: Awaited): boolean {
    if (arrival === 'live') return true;
    const waitedMs = this.#options.clock.monotonic() - awaitedSince;
    return waitedMs >= (arrival === 'read' ? 2 * GRACE_MS : EAGER_FOR_MS);
  }

  async #look(): Promise<void> {
    const { endpoints, clock, signal } = this.#options;
    const kinds = new Set([...this.#awaited.values()].flat().map(({ kind }) => kind));
    const asked = endpoints.filter(({ kind }) => kinds.has(kind));
    const answers = await Promise.all(
      asked.map(async ({ kind, requests }): Promise<GatewayAnswers> => {
        const bodies: unknown[] = [];
        const failures: string[] = [];
        // One after the other: over one connection, and so from one pod behind a Service.
        for (const request of requests) {
          const answer = await askGateway(request, clock, signal);
          bodies.push('failure' in answer ? undefined : answer.body);
          if ('failure' in answer) failures.push(answer.failure);
        }
        return { kind, bodies, failures };
      }),
    );
    for (const [reported, all] of [...this.#awaited]) {
      for (const awaited of all) {
        const found = this.#judge(awaited, answers);
        if (found && this.#awaited.get(reported) === all) await this.#tell(awaited, found, all);
      }
    }
  }

  /** The worst of what answers and statuses show; undefined while nothing is known. */
  #judge({ kind, loading, expected, views }: Awaited, answers: readonly GatewayAnswers[]): Found | undefined {
    const judged: Loaded[] = [];
    const failures: string[] = [];
    for (const answer of answers.filter((one) => one.kind === kind)) {
      try {
        const seen = loading.answers?.judge(answer.bodies, expected);
        if (seen) judged.push(seen);
        failures.push(...answer.failures);
      } catch (error) {
        failures.push(error instanceof Error ? error.message : String(error));
      }
    }
    if (loading.statuses && views.every((view) => view.synced)) {
      judged.push(
        loading.statuses.judge(
          views.flatMap((view) => view.items()),
          expected,
        ),
      );
    }
    const worst = worstOf(judged);
    return worst ?? (failures.length > 0 ? { failure: failures.join('; ') } : undefined);
  }

  async #tell(awaited: Awaited, found: Found, all: readonly Awaited[]): Promise<void> {
    const { clock, metrics } = this.#options;
    const waitedMs = clock.monotonic() - awaited.lateSince;
    const arrival = 'failure' in found ? undefined : found.arrival;
    if (arrival === 'live' && awaited.arrival !== 'live' && awaited.since !== undefined) {
      metrics.liveLag.observe({ mesh: awaited.mesh }, (clock.monotonic() - awaited.since) / 1000);
    }
    awaited.arrival = arrival;
    if (arrival === 'live' || waitedMs >= GRACE_MS || awaited.since === undefined) {
      awaited.found = { arrival, condition: awaited.loading.condition(found, awaited.expected) };
      this.#show(awaited.certificate, all);
    }
    if ('arrival' in found) await this.#nudgeIfDue(awaited, found);
  }

  /**
   * Of several gateways, one that does not use what is published, or else one of which it is not known; a gateway that
   * is not judged yet does not count.
   */
  #show({ metadata }: MeshCertificate, all: readonly Awaited[]): void {
    const { clock, metrics } = this.#options;
    const found = all.flatMap((one) => one.found ?? []);
    const worst = (['False', 'Unknown', 'True'] as const).flatMap((status) =>
      found.filter(({ condition }) => condition.status === status),
    )[0];
    const [first] = all;
    if (!worst || !first) return;
    const key = { namespace: metadata.namespace ?? '', name: metadata.name };
    if (worst.condition.status === 'Unknown') metrics.live.remove(key);
    else metrics.live.set(key, worst.arrival === 'live' ? 1 : 0);
    const { generation } = metadata;
    const judged = generation === undefined ? {} : { observedGeneration: generation };
    this.#amend?.(first.certificate, { type: 'Live', ...worst.condition, ...judged }, clock.now());
  }

  async #nudgeIfDue(awaited: Awaited, found: Loaded): Promise<void> {
    const { loading, desired, expected, awaitedSince, lateSince, nudges } = awaited;
    const now = this.#options.clock.monotonic();
    const [due, waitedMs] =
      found.arrival === 'read'
        ? [BLIND_NUDGE_AFTER_MS[nudges], now - awaitedSince]
        : [NUDGE_AFTER_MS[nudges], now - lateSince];
    if ((found.arrival !== 'stale' && found.arrival !== 'read') || due === undefined || waitedMs < due) return;
    // Never in the batch of the publication itself.
    if (now - awaitedSince < NUDGE_AFTER_MS[0]) return;
    const wanted = loading.nudge?.(desired, expected, awaited.nudges + 1, found) ?? [];
    if (wanted.length === 0) return;
    awaited.nudges += 1;
    const why = found.arrival === 'stale' ? 'which used an old certificate' : 'which did not show what it uses';
    for (const one of wanted) await nudge(one, why, this.#options);
  }
}

/** What one endpoint answered. */
interface GatewayAnswers {
  readonly kind: string;
  readonly bodies: readonly unknown[];
  readonly failures: readonly string[];
}

type Found = Loaded | { readonly failure: string };

/** Makes the gateway read everything again. A failure is logged; the next nudge is another attempt. */
async function nudge(
  { ref, patch, fieldManager }: Nudge,
  why: string,
  { kube, log, signal }: { readonly kube: Kube; readonly log: Log; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await kube.merge(ref, patch, { fieldManager }, signal);
    log.warn({ object: describe(ref) }, `nudged the gateway, ${why}`);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const { code, message } = error;
    log.warn({ object: describe(ref), code }, `could not nudge the gateway: ${message}`);
  }
}

/** Diagnostics of a gateway with thousands of routes take seconds to render. */
const TIMEOUT_MS = 10_000;

/** Some kilobytes for each route, and some dozens of values. */
const LARGEST_ANSWER = 16 * 1024 * 1024;
const LIMITS: JsonLimits = { depth: 32, values: 500_000 };

/** Metrics have some kilobytes of text for each cluster, and a few lines that are wanted. */
const LONGEST_TEXT = 256 * 1024 * 1024;
const LONGEST_LINE = 64 * 1024;

/** One GET: the JSON, or the wanted lines. An error is returned, not thrown. */
export async function askGateway(
  { url, wanted }: LoadingRequest,
  clock: Clock,
  signal: AbortSignal,
): Promise<{ readonly body: unknown } | { readonly failure: string }> {
  using late = limitedTo(clock, TIMEOUT_MS, () => new Error(`no answer within ${TIMEOUT_MS / 1000} s`), signal);
  try {
    const accept = wanted ? 'text/plain' : 'application/json';
    const response = await fetch(url, { headers: { accept }, signal: late.signal });
    if (!response.ok) return { failure: `${url.origin} answers ${response.status}` };
    if (wanted && response.body) return { body: await wantedLines(Readable.fromWeb(response.body), wanted) };
    const bytes = response.body && (await bounded(response.body, LARGEST_ANSWER));
    if (!bytes) return { failure: `${url.origin} answers with more than ${LARGEST_ANSWER / 1024 / 1024} MiB` };
    return { body: parseJson(bytes.toString(), LIMITS) };
  } catch (error) {
    if (late.signal.aborted) return { failure: `${url.origin}: ${(late.signal.reason as Error).message}` };
    if (error instanceof RangeError) return { failure: `${url.origin} answers with ${error.message}` };
    if (error instanceof SyntaxError) return { failure: `${url.origin} answers something that is not JSON` };
    const { message, cause } = error as Error;
    const { code, message: said = message } = (cause ?? {}) as NodeJS.ErrnoException;
    return { failure: `${url.origin}: ${localCause(`${code} ${said}`) ?? 'the request failed'}` };
  }
}

/** Keeps as much as an answer in JSON may have. */
async function wantedLines(stream: Readable, wanted: readonly string[]): Promise<string[]> {
  const kept: string[] = [];
  let [read, size] = [0, 0];
  for await (const line of lines(stream, LONGEST_LINE)) {
    read += line.length;
    if (read > LONGEST_TEXT) throw new RangeError(`more than ${LONGEST_TEXT / 1024 / 1024} MiB`);
    if (!wanted.some((word) => line.startsWith(word))) continue;
    size += line.length;
    if (size > LARGEST_ANSWER)
      throw new RangeError(`more than ${LARGEST_ANSWER / 1024 / 1024} MiB of the lines asked for`);
    kept.push(line);
  }
  return kept;
}
