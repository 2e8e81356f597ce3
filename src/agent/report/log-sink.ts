import type { Clock } from '../../async/clock.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { reasonOf } from '../../core/problem.ts';
import { isProgress, isTrouble, type PublicationStatus } from '../../core/status.ts';
import { REPEAT_MS } from '../../kube/failure-streak.ts';
import { codeOf } from '../../mesh/error.ts';
import type { Log } from '../../mesh/log.ts';
import { withdrawnSince } from './event-sink.ts';
import type { Passed } from './report.ts';
import type { Sink } from './reporter.ts';

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

  status(status: PublicationStatus, before: PublicationStatus | undefined, report: Passed): void {
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
      const {
        failure,
        certificate: { refused },
      } = report;
      const isSaid = reason === 'Writing' || [failure, refused].some((one) => one && reason === reasonOf(one.code));
      const level = !report.leading || !old || isSaid ? 'debug' : isBad ? 'warn' : isRecovery ? 'info' : 'debug';
      this.#log[level]({ certificate, condition: type, status: condition.status, reason }, message);
    }
    if (report.leading) this.#logEnding(certificate, status);
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    const name = nameOf(certificate);
    const code = codeOf(error, 'ERR_UNKNOWN');
    this.#repeated(name, `${code} ${error.message}`, (level, times) =>
      this.#log[level]({ certificate: name, code, ...(times > 1 ? { times } : {}) }, error.message),
    );
  }

  forget(certificate: MeshCertificate): void {
    this.#logged.delete(nameOf(certificate));
  }

  #logWrites(
    certificate: string,
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    { certificate: of, outcome, repair, inForce, leading, rotation }: Passed,
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
