import { isDeepStrictEqual } from 'node:util';
import { retrying } from '../async/retrying.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { retryDelay } from '../core/retry.ts';
import { type PublicationStatus, reportedStatus } from '../core/status.ts';
import type { Kube } from '../kube/api.ts';
import { codeOf } from '../mesh/error.ts';
import type { Runtime } from '../mesh/log.ts';
import { FIELD_MANAGER, type KubeObject } from '../objects/objects.ts';
import type { ReconcileResult, ReportedStatus, Sink } from './reporter.ts';
import type { WritePriority } from './write-order.ts';

export interface StatusWriterOptions extends Runtime {
  readonly kube: Kube;
  /** Lets other writes go first. */
  readonly writePriority: WritePriority;
  /** Whether this process currently writes for the MeshCertificate of this key. */
  readonly leads: (key: string) => boolean;
  readonly signal: AbortSignal;
}

/** A first status that waits for the certificate is written after this long, so that most first issues need one write. */
const FIRST_MS = 30_000;

/** The longest wait between two attempts: after an outage of the API server, statuses are looked at first. */
const MOST_RETRY_MS = 60_000;
/** A status in which only times of attempts differ is not written more often than this. */
const REFRESH_MS = 120_000;

interface WrittenStatus {
  readonly status: PublicationStatus;
  /** The resourceVersion that the API server returned for it. */
  readonly version: bigint;
}

interface Pending {
  readonly certificate: MeshCertificate;
  readonly status: PublicationStatus;
}

/**
 * Writes the status subresource: once for each relevant change, only the newest status, and only from the leader. A
 * status that says "writing" is skipped, so that a rotation costs one status write and not two; a first status waits
 * some seconds for the certificate.
 */
export class StatusWriter implements Sink {
  readonly #options: StatusWriterOptions;
  readonly #pending = new Map<ReportedStatus, Pending>();
  /** Kept until the watch shows that the resource carries it. */
  readonly #written = new Map<ReportedStatus, WrittenStatus>();
  readonly #busy = new Set<ReportedStatus>();
  /** First statuses that wait for a certificate, and how to stop the wait. */
  readonly #waiting = new Map<ReportedStatus, () => void>();
  #idle: (() => void)[] = [];

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  status(
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    report: ReconcileResult,
    reported: ReportedStatus,
  ): void {
    const { certificate, leading } = report;
    if (status === certificate.status) this.seen(certificate, reported);
    if (!leading) return;
    const published = status.conditions.find(({ type }) => type === 'Published');
    if (published?.reason === 'Writing' && before !== undefined) return;
    if (!this.#pending.has(reported) && this.#isStored(reported, certificate, status)) return;
    this.#pending.set(reported, { certificate, status });
    if (this.#busy.has(reported)) return;
    const isFirst = reportedStatus(certificate.status) === undefined && !this.#written.has(reported);
    if (isFirst && (published?.reason === 'NotIssued' || published?.reason === 'Writing')) this.#wait(reported);
    else this.#start(reported);
  }

  #wait(reported: ReportedStatus): void {
    if (this.#waiting.has(reported)) return;
    this.#waiting.set(
      reported,
      this.#options.clock.after(FIRST_MS, () => this.#start(reported)),
    );
  }

  #start(reported: ReportedStatus): void {
    this.#waiting.get(reported)?.();
    this.#waiting.delete(reported);
    void this.#drain(reported);
  }

  seen(certificate: MeshCertificate, reported: ReportedStatus): void {
    const wrote = this.#written.get(reported);
    if (wrote && versionOf(certificate) >= wrote.version) this.#written.delete(reported);
  }

  /** Resolves once every reported status is stored, or the writer has ended. */
  async flush(): Promise<void> {
    for (const reported of [...this.#waiting.keys()]) this.#start(reported);
    while (this.#busy.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  forget(_certificate: MeshCertificate, reported: ReportedStatus | undefined): void {
    if (!reported) return;
    this.#waiting.get(reported)?.();
    this.#waiting.delete(reported);
    this.#pending.delete(reported);
    this.#written.delete(reported);
  }

  /**
   * The published status is the one that we wrote, until a newer one is seen, which another replica may have written.
   */
  #isStored(reported: ReportedStatus, certificate: MeshCertificate, status: PublicationStatus): boolean {
    const wrote = this.#written.get(reported);
    const stored = certificate.status as PublicationStatus | undefined;
    const known = wrote && versionOf(certificate) <= wrote.version ? wrote.status : stored;
    return known === status || (known !== undefined && isDeepStrictEqual(known, asOf(known, status)));
  }

  async #drain(reported: ReportedStatus): Promise<void> {
    const { clock, random, log, signal } = this.#options;
    const retry = {
      clock,
      delay: (failures: number) => retryDelay(failures, random, { maxMs: MOST_RETRY_MS }),
      failed: (error: Error, failures: number) => {
        const fields = { certificate: reported.key, code: codeOf(error, 'ERR_UNKNOWN'), times: failures };
        log[failures === 1 ? 'warn' : 'debug'](fields, `could not write the status; trying again: ${error.message}`);
      },
    };
    this.#busy.add(reported);
    try {
      while (this.#pending.has(reported)) await retrying(() => this.#write(reported), retry, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#busy.delete(reported);
      if (this.#busy.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  /** Writes the newest status at the time when its turn has come. */
  async #write(reported: ReportedStatus): Promise<void> {
    const { kube, leads, writePriority, signal } = this.#options;
    using _turn = await writePriority.later(signal);
    const next = this.#pending.get(reported);
    if (!next) return;
    this.#pending.delete(reported);
    const { certificate, status } = next;
    // A status that waited while the Lease was lost is out of date: it must not follow the new leader's.
    if (!leads(reported.key) || this.#isStored(reported, certificate, status)) return;
    const object = { ...refObject(certificate), status };
    const options = { fieldManager: FIELD_MANAGER, force: true, subresource: 'status' } as const;
    try {
      const answer = await kube.apply(object, options, signal);
      this.#written.set(reported, { status, version: versionOf(answer) });
    } catch (error) {
      // The MeshCertificate may have been deleted a moment ago: the watch says so, or it reports a status again.
      const isGone = (error as { status?: number }).status === 404;
      if (!isGone && !this.#pending.has(reported)) this.#pending.set(reported, next);
      throw error;
    }
  }
}

/** The status, with the known times of attempts unless they are much newer. */
function asOf(known: PublicationStatus, status: PublicationStatus): PublicationStatus {
  const [before, now] = [known.lastError, status.lastError];
  if (!before || !now || Date.parse(now.time) - Date.parse(before.time) >= REFRESH_MS) return status;
  const { nextAttemptTime: _, ...rest } = status;
  const next = known.nextAttemptTime === undefined ? {} : { nextAttemptTime: known.nextAttemptTime };
  return { ...rest, lastError: { ...now, time: before.time }, ...next };
}

/** No resourceVersion: only we write the status, and the newest one is right whatever changed in the spec. */
function refObject({ apiVersion, kind, metadata }: MeshCertificate) {
  const { name, namespace = '' } = metadata;
  return { apiVersion, kind, metadata: { name, namespace } };
}

/** Versions of one object are increasing numbers in every API server that stores in etcd. */
function versionOf({ metadata }: KubeObject): bigint {
  const text = metadata.resourceVersion ?? '';
  return /^\d+$/.test(text) ? BigInt(text) : -1n;
}
