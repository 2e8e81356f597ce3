import { createHash } from 'node:crypto';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { retryDelay } from '../core/backoff.ts';
import { FIELD_MANAGER, type KubeObject, keyOf, refOf } from '../core/object.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Kube } from '../kube/api.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';
import { Precedence } from './precedence.ts';
import type { Report } from './report.ts';
import type { Sink } from './reporter.ts';

export interface StatusWriterOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Who goes first; default: nobody else writes. */
  readonly precedence?: Precedence | undefined;
  /** Whether this process writes for the MeshCertificate of this key now. Default: it does. */
  readonly leads?: ((key: string) => boolean) | undefined;
  readonly signal: AbortSignal;
}

interface Written {
  /** Of the text: those of a thousand would be some megabytes. */
  readonly digest: string;
  /** That the API server gave to it. */
  readonly version: bigint;
}

interface Pending {
  readonly certificate: MeshCertificate;
  readonly status: PublicationStatus;
  readonly digest: string;
}

/**
 * Writes the status subresource: once for each change that is worth it, the newest only, and only by who leads.
 * A status that says «writing» is skipped, so that a rotation costs one status write and not two.
 */
export class StatusWriter implements Sink {
  readonly #options: StatusWriterOptions;
  readonly #pending = new Map<string, Pending>();
  readonly #written = new Map<string, Written>();
  readonly #busy = new Set<string>();
  readonly #precedence: Precedence;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
    this.#precedence = options.precedence ?? new Precedence(options.clock);
  }

  status(status: PublicationStatus, before: PublicationStatus | undefined, report: Report): void {
    const key = keyOf(refOf(report.certificate));
    if (!report.leading) return;
    const published = status.conditions.find(({ type }) => type === 'Published');
    if (published?.reason === 'Writing' && before !== undefined) return;
    const digest = digestOf(status);
    if (digest === this.#known(key, report.certificate) && !this.#pending.has(key)) return;
    this.#pending.set(key, { certificate: report.certificate, status, digest });
    if (!this.#busy.has(key)) void this.#drain(key);
  }

  forget(certificate: MeshCertificate): void {
    const key = keyOf(refOf(certificate));
    this.#pending.delete(key);
    this.#written.delete(key);
  }

  /** The digest of what stands: what we wrote, until something newer is seen, which another replica may have written. */
  #known(key: string, certificate: MeshCertificate): string {
    const wrote = this.#written.get(key);
    return wrote && versionOf(certificate) <= wrote.version ? wrote.digest : digestOf(certificate.status ?? null);
  }

  async #drain(key: string): Promise<void> {
    const { kube, clock, random, log, signal } = this.#options;
    this.#busy.add(key);
    let failures = 0;
    try {
      while (this.#pending.has(key) && !signal.aborted) {
        using turn = await this.#precedence.later(signal);
        // The newest of when its turn has come.
        const next = this.#pending.get(key);
        if (!next) return;
        this.#pending.delete(key);
        // What waited while the Lease was lost is old: it must not follow what the new leader says.
        if (this.#options.leads?.(key) === false) return;
        const { certificate, status, digest } = next;
        // The same was said again while it was being written.
        if (digest === this.#known(key, certificate)) continue;
        try {
          const answer = await kube.apply(
            { ...refObject(certificate), status },
            { fieldManager: FIELD_MANAGER, force: true, subresource: 'status' },
            signal,
          );
          this.#written.set(key, { digest, version: versionOf(answer) });
          failures = 0;
        } catch (error) {
          if (signal.aborted) return;
          turn[Symbol.dispose]();
          failures += 1;
          log[failures === 1 ? 'warn' : 'debug']({ err: error }, 'the status could not be written; it is tried again');
          if (!this.#pending.has(key)) this.#pending.set(key, next);
          await clock.sleep(retryDelay(failures, random), signal).catch(() => {});
          if ((error as { status?: number }).status === 404) this.#pending.delete(key);
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#busy.delete(key);
    }
  }
}

/** No resourceVersion: only we write the status, and the newest is right whatever changed in the spec. */
function refObject({ apiVersion, kind, metadata }: MeshCertificate) {
  const { name, namespace = '' } = metadata;
  return { apiVersion, kind, metadata: { name, namespace } };
}

/** Versions of one object are numbers that grow in every API server that stores in etcd. */
function versionOf({ metadata }: KubeObject): bigint {
  const text = metadata.resourceVersion ?? '';
  return /^\d+$/.test(text) ? BigInt(text) : -1n;
}

/** Equal values have equal digests: the API server gives fields back in an order of its own. */
function digestOf(value: unknown): string {
  const text = JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
  return createHash('sha256').update(text).digest('base64');
}
