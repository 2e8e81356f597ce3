import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../async/clock.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { type Problem, reasonOf } from '../core/problem.ts';
import { isProgress, isTrouble, type PublicationStatus } from '../core/status.ts';
import type { EventSubject, Recorder } from '../kube/events.ts';
import { REPEAT_MS } from '../kube/reflector.ts';
import type { Log } from '../mesh/log.ts';
import { describe, keyOf, refOf } from '../objects/objects.ts';
import { deriveSeries, forget, type Metrics, type Observed } from '../telemetry/metrics.ts';
import type { ReconcileResult, ReportedStatus, Sink } from './reporter.ts';

/** What was logged about one MeshCertificate. */
interface LoggedState {
  /** When a line was logged at warn, on the monotonic clock, and how often it occurred since the first time. */
  readonly lines: Map<string, { at: number; times: number }>;
  /** Objects written since the last certificate or bundle was read back. */
  written: string[];
}

/**
 * One line for each event: a rotation is one line at info, from the replica that wrote it. A failure is one line at
 * warn, and another every ten minutes while it recurs.
 */
export class LogSink implements Sink {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #logged = new Map<string, LoggedState>();

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  status(status: PublicationStatus, before: PublicationStatus | undefined, report: ReconcileResult): void {
    const certificate = nameOf(report.certificate);
    this.#logWrites(certificate, status, before, report);
    if (status.held && status.held.fingerprint !== before?.held?.fingerprint) {
      this.#log.warn({ certificate, ...status.held }, 'a newer certificate is held back');
    }
    for (const condition of status.conditions) {
      if (isProgress(condition)) continue;
      const old = before?.conditions.find(({ type }) => type === condition.type);
      if (old?.status === condition.status && old.reason === condition.reason) continue;
      const { type, reason, message } = condition;
      const isBad = isTrouble(condition);
      const isRecovery = type === 'Degraded' && condition.status === 'False' && old?.status === 'True';
      // The failure itself and a refused spec were logged when they occurred.
      const known = [status.lastError, report.certificate.refused];
      const isSaid = reason === 'Writing' || known.some((one) => one && reason === reasonOf(one.code));
      const level = !report.leading || !old || isSaid ? 'debug' : isBad ? 'warn' : isRecovery ? 'info' : 'debug';
      this.#log[level]({ certificate, condition: type, status: condition.status, reason }, message);
    }
    if (report.leading) this.#logEnding(certificate, status);
  }

  failure(certificate: MeshCertificate, { code, message }: Problem): void {
    const name = nameOf(certificate);
    this.#repeated(name, `${code} ${message}`, (level, times) =>
      this.#log[level]({ certificate: name, code, ...(times > 1 ? { times } : {}) }, message),
    );
  }

  forget(certificate: MeshCertificate): void {
    this.#logged.delete(nameOf(certificate));
  }

  #logWrites(
    certificate: string,
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    { certificate: of, outcome, repair, inForce, leading, rotation }: ReconcileResult,
  ): void {
    const objects = (outcome?.written ?? []).map(({ ref }) => `${ref.kind} ${ref.namespace}/${ref.name}`);
    if (repair && objects.length > 0) {
      this.#log.warn({ certificate, objects }, 'objects were restored after a change by another client');
    } else if (objects.length > 0) this.#of(certificate).written.push(...objects);
    if (leading) {
      for (const { subject, fingerprint } of withdrawnSince(before, status, of)) {
        this.#log.warn(
          { certificate, subject, fingerprint },
          'the root is withdrawn by the spec and no longer trusted',
        );
      }
    }
    if (!inForce || !leading) return;
    const { id, notAfter, renewalTime, fingerprint } = status;
    const written = this.#logged.get(certificate)?.written ?? [];
    if (fingerprint !== undefined && fingerprint !== before?.fingerprint) {
      this.#logged.delete(certificate);
      const leaf = fingerprint.slice(0, 16);
      this.#log.info({ certificate, id, leaf, notAfter, renewalTime, objects: written }, 'certificate published');
    } else if (written.length > 0) {
      this.#of(certificate).written = [];
      const what = rotation?.kind === 'bundle' ? 'trust bundle published' : 'objects published';
      this.#log.info({ certificate, objects: written }, what);
    }
  }

  /** Why no newer certificate came, while the published one is about to expire or has expired. */
  #logEnding(certificate: string, { notAfter, emergencyTime, lastError, nextAttemptTime }: PublicationStatus): void {
    const now = this.#clock.now();
    if (notAfter === undefined || !lastError || now < Date.parse(emergencyTime ?? notAfter)) return;
    const { code, message, firstTime: since, time: lastAttempt } = lastError;
    const what = now < Date.parse(notAfter) ? 'ends soon' : 'has expired';
    this.#repeated(certificate, `${what} ${notAfter} ${code}`, (level) =>
      this.#log[level](
        { certificate, notAfter, code, since, lastAttempt, nextAttempt: nextAttemptTime },
        `the certificate ${what}, and no newer one came: ${code}: ${message}`,
      ),
    );
  }

  /** At warn the first time and after REPEAT_MS, else at debug. */
  #repeated(certificate: string, line: string, write: (level: 'warn' | 'debug', times: number) => void): void {
    const { lines } = this.#of(certificate);
    const now = this.#clock.monotonic();
    const said = lines.get(line);
    const isDue = said === undefined || now - said.at >= REPEAT_MS;
    const times = (said?.times ?? 0) + 1;
    lines.delete(line);
    lines.set(line, { at: isDue ? now : said.at, times });
    for (const oldest of lines.keys()) {
      if (lines.size <= MOST_LINES) break;
      lines.delete(oldest);
    }
    write(isDue ? 'warn' : 'debug', times);
  }

  #of(certificate: string): LoggedState {
    const logged = this.#logged.get(certificate) ?? { lines: new Map(), written: [] };
    this.#logged.set(certificate, logged);
    return logged;
  }
}

/** A failing mesh alternates between a few errors; more are messages that differ each time. */
const MOST_LINES = 8;

const nameOf = ({ metadata }: MeshCertificate): string => `${metadata.namespace}/${metadata.name}`;

/** The reasons of our Events, in addition to those made from error codes; docs/runbook.md has an entry for each. */
export const EVENT_REASONS = [
  'Published',
  'Rotated',
  'TrustChanged',
  'RootWithdrawn',
  'LeafHeld',
  'DriftRepaired',
  'UpstreamVerified',
  'UpstreamNotVerified',
] as const;

/** Kubernetes Events about MeshCertificates: what `kubectl describe` shows. */
export class EventSink implements Sink {
  readonly #recorder: Recorder;

  constructor(recorder: Recorder) {
    this.#recorder = recorder;
  }

  status(status: PublicationStatus, before: PublicationStatus | undefined, report: ReconcileResult): void {
    if (!report.leading) return;
    const say = (type: 'Normal' | 'Warning', reason: (typeof EVENT_REASONS)[number], message: string) =>
      this.#recorder.event(subject(report.certificate), type, reason, message);
    const objects = (report.outcome?.written ?? []).map(({ ref }) => `${ref.kind} ${ref.name}`).join(', ');
    if (report.repair && objects !== '')
      say('Warning', 'DriftRepaired', `Restored after a change by another client: ${objects}.`);
    if (report.inForce && before?.fingerprint === undefined && status.fingerprint !== undefined) {
      say('Normal', 'Published', `Certificate of ${status.id} until ${status.notAfter}.`);
    } else if (report.rotation?.kind === 'leaf') {
      say('Normal', 'Rotated', `Certificate of ${status.id} until ${status.notAfter}.`);
    } else if (report.rotation?.kind === 'bundle') {
      say('Normal', 'TrustChanged', `The trust bundle has ${status.roots.length} root(s).`);
    }
    for (const { subject, fingerprint } of withdrawnSince(before, status, report.certificate)) {
      const what = `The root "${subject}" (${fingerprint.slice(0, 16)}) is in spec.trust.withdrawn and no longer trusted. A certificate that ends at it is not published.`;
      say('Warning', 'RootWithdrawn', what);
    }
    const [old, now] = [before, status].map((one) => one?.conditions.find(({ type }) => type === 'UpstreamVerified'));
    if (now && now.status !== old?.status) {
      if (now.status === 'True') say('Normal', 'UpstreamVerified', now.message);
      else say('Warning', 'UpstreamNotVerified', now.message);
    }
    if (status.held && status.held.fingerprint !== before?.held?.fingerprint) {
      say('Warning', 'LeafHeld', `A newer certificate is held back until ${status.held.until}: ${status.held.reason}.`);
    }
  }

  failure(certificate: MeshCertificate, { code, message }: Problem): void {
    this.#recorder.event(subject(certificate), 'Warning', reasonOf(code), message);
  }
}

/** The roots that this decision takes out of the bundle because the spec withdraws them. */
export function withdrawnSince(
  before: PublicationStatus | undefined,
  { roots }: PublicationStatus,
  { spec }: MeshCertificate,
): PublicationStatus['roots'] {
  const isLeft = (fingerprint: string) => roots.some((root) => root.fingerprint === fingerprint);
  return (before?.roots ?? []).filter(
    ({ fingerprint }) => spec.trust.withdrawn.includes(fingerprint) && !isLeft(fingerprint),
  );
}

function subject({ apiVersion, kind, metadata }: MeshCertificate): EventSubject {
  const { name, namespace, uid } = metadata;
  return { apiVersion, kind, name, namespace, uid };
}

/** What a status does not contain. */
interface Tally {
  breakerOpen: boolean;
  lastSuccess: number | undefined;
  leaves: number;
  bundles: number;
}

/** Counts and times what the reconcilers report. */
export class MetricsSink implements Sink {
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  readonly #tallies = new Map<ReportedStatus, Tally>();

  constructor(metrics: Metrics, clock: Clock) {
    this.#metrics = metrics;
    this.#clock = clock;
    deriveSeries(metrics, () => this.#observed());
  }

  status(
    status: PublicationStatus,
    _before: PublicationStatus | undefined,
    report: ReconcileResult,
    reported: ReportedStatus,
  ): void {
    const metrics = this.#metrics;
    const tally = this.#tallies.get(reported) ?? { breakerOpen: false, lastSuccess: undefined, leaves: 0, bundles: 0 };
    this.#tallies.set(reported, tally);
    tally.breakerOpen = report.breakerOpenMs > 0;
    if (report.inForce && !status.lastError) tally.lastSuccess = this.#clock.now();
    for (const { ref, action } of report.outcome?.written ?? []) {
      metrics.writes.inc({ kind: ref.kind, action });
      if (report.repair) metrics.driftRepairs.inc({ kind: ref.kind });
    }
    if (report.rotation) {
      tally[report.rotation.kind === 'leaf' ? 'leaves' : 'bundles'] += 1;
      if (report.rotation.lagMs !== undefined) {
        metrics.rotationLag.observe({ mesh: status.mesh }, report.rotation.lagMs / 1000);
      }
    }
  }

  failure({ metadata }: MeshCertificate, { code }: Problem): void {
    const { namespace = '', name } = metadata;
    this.#metrics.failures.inc({ namespace, name, code });
  }

  forget({ metadata }: MeshCertificate, reported: ReportedStatus | undefined): void {
    if (reported) this.#tallies.delete(reported);
    forget(this.#metrics, { namespace: metadata.namespace ?? '', name: metadata.name });
  }

  *#observed(): Iterable<Observed> {
    for (const [{ namespace, name, status }, tally] of this.#tallies) yield { namespace, name, status, ...tally };
  }
}

/** For a one-shot run: resolves when every desired MeshCertificate is published and was read back. */
export class OnceSink implements Sink {
  readonly #finish: () => void;
  #expected: ReadonlyMap<string, string> | undefined;
  readonly #ready = new Set<string>();
  readonly #failures = new Map<string, string>();

  constructor(finish: () => void) {
    this.#finish = finish;
  }

  expect(desired: readonly MeshCertificate[]): void {
    this.#expected = new Map(desired.map((one) => [keyOf(refOf(one)), describe(refOf(one))]));
    this.#check();
  }

  get done(): boolean {
    const expected = this.#expected;
    return expected !== undefined && [...expected.keys()].every((key) => this.#ready.has(key));
  }

  /** One line for each MeshCertificate that is not published. */
  explain(): string {
    const open = [...(this.#expected ?? [])].filter(([key]) => !this.#ready.has(key));
    if (this.#expected === undefined) return '  no MeshCertificates were read';
    return open.map(([key, name]) => `  ${name}: ${this.#failures.get(key) ?? 'no result yet'}`).join('\n');
  }

  status({ lastError }: PublicationStatus, _before: PublicationStatus | undefined, report: ReconcileResult): void {
    const key = keyOf(refOf(report.certificate));
    if (lastError) this.#failures.set(key, `${lastError.code}: ${lastError.message}`);
    // A dry run stores nothing, so there is nothing to read back: an accepted write is the most it can achieve.
    const { outcome } = report;
    const accepted = outcome && outcome.problems.length + outcome.skipped.length === 0 && report.dryRun;
    if (report.inForce || accepted) this.#ready.add(key);
    this.#check();
  }

  #check(): void {
    if (this.done) this.#finish();
  }
}

export type BoardEntry = Omit<ReportedStatus, 'key'>;

/** The newest status of each MeshCertificate, for /readyz, /api/status, the page and `meshcert status`. */
export class StatusBoard implements Sink {
  readonly #reported = new Set<ReportedStatus>();
  /** Valid until a MeshCertificate is added or removed. */
  #sorted: readonly ReportedStatus[] | undefined;
  readonly #subscribers = new Set<() => void>();

  /** Sorted by namespace and name. */
  all(): readonly BoardEntry[] {
    this.#sorted ??= [...this.#reported].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
    return this.#sorted.map(({ namespace, name, status }) => ({ namespace, name, status }));
  }

  /** Called after each change; returns the function that unsubscribes. */
  subscribe(notify: () => void): () => void {
    this.#subscribers.add(notify);
    return () => this.#subscribers.delete(notify);
  }

  status(
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    _report: ReconcileResult,
    reported: ReportedStatus,
  ): void {
    const known = this.#reported.has(reported);
    if (!known) {
      this.#reported.add(reported);
      this.#sorted = undefined;
    }
    if (!known || (status !== before && !isDeepStrictEqual(status, before))) this.#tell();
  }

  forget(_certificate: MeshCertificate, reported: ReportedStatus | undefined): void {
    if (!reported || !this.#reported.delete(reported)) return;
    this.#sorted = undefined;
    this.#tell();
  }

  #tell(): void {
    for (const notify of this.#subscribers) notify();
  }
}

const placeOf = ({ namespace, name }: ReportedStatus): string => `${namespace}/${name}`;
