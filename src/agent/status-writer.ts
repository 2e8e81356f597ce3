import { isDeepStrictEqual } from 'node:util';
import { retrying } from '../async/retrying.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { retryDelay } from '../core/retry.ts';
import { type PublicationStatus, reportedStatus } from '../core/status.ts';
import type { Kube } from '../kube/api.ts';
import { codeOf } from '../mesh/error.ts';
import type { Runtime } from '../mesh/log.ts';
import { FIELD_MANAGER, type KubeObject } from '../objects/objects.ts';
import type { ReconcileResult, Sink, StatusEntry } from './reporter.ts';
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
  readonly #pending = new Map<StatusEntry, Pending>();
  /** Kept until the watch shows that the resource carries it. */
  readonly #written = new Map<StatusEntry, WrittenStatus>();
  readonly #busy = new Set<StatusEntry>();
  /** First statuses that wait for a certificate, and how to stop the wait. */
  readonly #waiting = new Map<StatusEntry, () => void>();
  #idle: (() => void)[] = [];

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  status(
    status: PublicationStatus,
    before: PublicationStatus | undefined,
    report: ReconcileResult,
    entry: StatusEntry,
  ): void {
    const { certificate, leading } = report;
    if (status === certificate.status) this.seen(certificate, entry);
    if (!leading) return;
    const published = status.conditions.find(({ type }) => type === 'Published');
    if (published?.reason === 'Writing' && before !== undefined) return;
    if (!this.#pending.has(entry) && this.#isStored(entry, certificate, status)) return;
    this.#pending.set(entry, { certificate, status });
    if (this.#busy.has(entry)) return;
    const isFirst = reportedStatus(certificate.status) === undefined && !this.#written.has(entry);
    if (isFirst && (published?.reason === 'NotIssued' || published?.reason === 'Writing')) this.#wait(entry);
    else this.#start(entry);
  }

  #wait(entry: StatusEntry): void {
    if (this.#waiting.has(entry)) return;
    this.#waiting.set(
      entry,
      this.#options.clock.after(FIRST_MS, () => this.#start(entry)),
    );
  }

  #start(entry: StatusEntry): void {
    this.#waiting.get(entry)?.();
    this.#waiting.delete(entry);
    void this.#drain(entry);
  }

  seen(certificate: MeshCertificate, entry: StatusEntry): void {
    const wrote = this.#written.get(entry);
    if (wrote && versionOf(certificate) >= wrote.version) this.#written.delete(entry);
  }

  /** Resolves once every reported status is stored, or the writer has ended. */
  async flush(): Promise<void> {
    for (const entry of [...this.#waiting.keys()]) this.#start(entry);
    while (this.#busy.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  forget(_certificate: MeshCertificate, entry: StatusEntry | undefined): void {
    if (!entry) return;
    this.#waiting.get(entry)?.();
    this.#waiting.delete(entry);
    this.#pending.delete(entry);
    this.#written.delete(entry);
  }

  /**
   * The published status is the one that we wrote, until a newer one is seen, which another replica may have written.
   */
  #isStored(entry: StatusEntry, certificate: MeshCertificate, status: PublicationStatus): boolean {
    const wrote = this.#written.get(entry);
    const stored = certificate.status as PublicationStatus | undefined;
    const known = wrote && versionOf(certificate) <= wrote.version ? wrote.status : stored;
    return known === status || (known !== undefined && isDeepStrictEqual(known, asOf(known, status)));
  }

  async #drain(entry: StatusEntry): Promise<void> {
    const { clock, random, log, signal } = this.#options;
    const retry = {
      clock,
      delay: (failures: number) => retryDelay(failures, random, { maxMs: MOST_RETRY_MS }),
      failed: (error: Error, failures: number) => {
        const fields = { certificate: entry.key, code: codeOf(error, 'ERR_UNKNOWN'), times: failures };
        log[failures === 1 ? 'warn' : 'debug'](fields, `could not write the status; trying again: ${error.message}`);
      },
    };
    this.#busy.add(entry);
    try {
      while (this.#pending.has(entry)) await retrying(() => this.#write(entry), retry, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#busy.delete(entry);
      if (this.#busy.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  /** Writes the newest status at the time when its turn has come. */
  async #write(entry: StatusEntry): Promise<void> {
    const { kube, leads, writePriority, signal } = this.#options;
    using _turn = await writePriority.later(signal);
    const next = this.#pending.get(entry);
    if (!next) return;
    this.#pending.delete(entry);
    const { certificate, status } = next;
    // A status that waited while the Lease was lost is out of date: it must not follow the new leader's.
    if (!leads(entry.key) || this.#isStored(entry, certificate, status)) return;
    const object = { ...refObject(certificate), status };
    const options = { fieldManager: FIELD_MANAGER, force: true, subresource: 'status' } as const;
    try {
      const answer = await kube.apply(object, options, signal);
      this.#written.set(entry, { status, version: versionOf(answer) });
    } catch (error) {
      // The MeshCertificate may have been deleted a moment ago: the watch says so, or it reports a status again.
      const isGone = (error as { status?: number }).status === 404;
      if (!isGone && !this.#pending.has(entry)) this.#pending.set(entry, next);
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
