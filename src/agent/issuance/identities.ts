import { type LinkedSignal, linkedTo } from '../../async/linked-signal.ts';
import type { Wake } from '../../async/wake.ts';
import type { Checking, Host, Issuer, Source } from '../../mesh/adapter.ts';
import { isIssuer } from '../../mesh/adapter.ts';
import { MeshError } from '../../mesh/error.ts';
import { type Identity, leafOf, sameLeaf } from '../../mesh/identity.ts';
import { asMeshError, type RenewingOptions, renewing } from '../../mesh/renewing.ts';

/** Any adapter as one endless stream of identities: issuers are renewed, sources are reopened. */
export function identities(
  opened: (Source | Issuer) & Partial<Checking>,
  host: Host,
  options: RenewingOptions,
  signal: AbortSignal,
): AsyncIterable<Identity> {
  return isIssuer(opened) ? renewing(opened, host, options, signal) : reopening(opened, host, options, signal);
}

/**
 * Keeps a push source open: reopens it after an error, when a renewal is requested, and when it is silent past the time
 * at which the mesh should have pushed the next leaf. A push source renews by itself, so our schedule is only a
 * watchdog.
 */
async function* reopening(
  source: Source,
  host: Host,
  options: RenewingOptions,
  signal: AbortSignal,
): AsyncGenerator<Identity> {
  const { policy } = options;
  let current = options.current;
  let failures = 0;
  /** Streams in a row that were reopened without a new leaf. */
  let silences = 0;
  if (current) yield current;
  while (!signal.aborted) {
    const watchdog = new OverdueWatchdog(host, options, signal, { overdue: source.overdue, silences });
    watchdog.expect(current);
    try {
      for await (const identity of source.watch(watchdog.signal)) {
        const refused = await policy.refuse(identity);
        if (refused) {
          failures += 1;
          host.report(refused);
          watchdog.reopenIn(policy.retryDelay(failures, asMeshError(refused), current && leafOf(current)));
          continue;
        }
        failures = 0;
        if (!sameLeaf(identity, current)) silences = 0;
        policy.succeeded();
        watchdog.expect(identity, sameLeaf(identity, current) ? undefined : host.clock.now());
        current = identity;
        yield identity;
      }
      if (signal.aborted) return;
      if (!watchdog.signal.aborted) {
        throw new MeshError(
          'ERR_MESH_UNAVAILABLE',
          'the mesh ended the stream of certificates; the agent opens it again',
        );
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!watchdog.signal.aborted) {
        failures += 1;
        const known = asMeshError(error);
        host.report(known);
        const delay = policy.retryDelay(failures, known, current && leafOf(current));
        await host.clock.sleep(delay, signal).catch(() => {});
        continue;
      }
    } finally {
      await watchdog.stop();
    }
    if (watchdog.silent) {
      silences += 1;
      host.report(
        new MeshError(
          'ERR_MESH_SILENT',
          'the mesh pushed no new certificate by the renewal time; the agent opens the stream again',
        ),
      );
    }
  }
}

/**
 * Once the leaf has expired, each stream is given twice the time of the one before: an expired leaf must not cause a
 * loop of reopening in which a slow mesh never gets to answer.
 */
const LEAST_PATIENCE_MS = 1000;
const MOST_PATIENCE_MS = 30_000;

/** Aborts its signal when a new leaf is overdue or a renewal was requested. */
class OverdueWatchdog {
  silent = false;
  readonly #options: RenewingOptions;
  readonly #host: Host;
  readonly #reopen: LinkedSignal;
  readonly #overdue: number;
  readonly #leastMs: number;
  #cancel: (() => void) | undefined;
  readonly #renewal: Promise<void> | undefined;

  constructor(
    host: Host,
    options: RenewingOptions,
    outer: AbortSignal,
    { overdue = 0, silences }: { readonly overdue: number | undefined; readonly silences: number },
  ) {
    this.#host = host;
    this.#options = options;
    this.#overdue = overdue;
    this.#leastMs = Math.min(LEAST_PATIENCE_MS * 2 ** silences, MOST_PATIENCE_MS);
    this.#reopen = linkedTo(outer);
    this.#renewal = options.wake && this.#onRenew(options.wake);
  }

  get signal(): AbortSignal {
    return this.#reopen.signal;
  }

  /**
   * Restarts the wait: overdue at the time that the mesh announced or at the leaf's renewal time, or half-way to its
   * end when that has passed.
   */
  expect(identity: Identity | undefined, issuedAt?: number): void {
    this.#cancel?.();
    if (!identity) return;
    const leaf = leafOf(identity);
    const now = this.#host.clock.now();
    const pushed = leaf.notBefore + (leaf.notAfter - leaf.notBefore) * this.#overdue;
    const due = Math.max(this.#options.policy.renewAt(leaf, issuedAt), pushed);
    const leastMs = now < leaf.notAfter ? LEAST_PATIENCE_MS : this.#leastMs;
    const wait = Math.max(leastMs, due > now ? due - now : (leaf.notAfter - now) / 2);
    this.#cancel = this.#host.clock.after(wait, () => {
      this.silent = true;
      this.#reopen.abort(new Error('silent'));
    });
  }

  /** The pushed identity cannot be used: the stream is reopened after a while, unless a better one comes first. */
  reopenIn(ms: number): void {
    this.#cancel?.();
    this.#cancel = this.#host.clock.after(ms, () => this.#reopen.abort(new Error('refused')));
  }

  async stop(): Promise<void> {
    this.#cancel?.();
    this.#reopen.abort(new Error('stopped'));
    this.#reopen[Symbol.dispose]();
    await this.#renewal;
  }

  async #onRenew(wake: Wake): Promise<void> {
    try {
      while (!wake.takeRenewal()) await wake.wait(this.signal);
      this.#reopen.abort(new Error('renewal requested'));
    } catch {
      // Stopped.
    }
  }
}
