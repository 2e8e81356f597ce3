import { type LinkedSignal, linkedTo, unlessAborted } from '../async/linked-signal.ts';
import { asError, retrying } from '../async/retrying.ts';
import type { Wake } from '../async/trigger.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { Problem } from '../core/problem.ts';
import { retryDelay } from '../core/retry.ts';
import { type Adapter, type Checking, type Host, type Issuer, isIssuer, type Source } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import { type Identity, leafOf, sameLeaf } from '../mesh/identity.ts';
import { asMeshError, type RenewingOptions, renewing } from '../mesh/renewing.ts';
import { CertificatePolicy, type PolicyOptions } from './renewal-policy.ts';
import type { WritePriority } from './write-order.ts';

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

interface IdentityStreamOptions extends Omit<PolicyOptions, 'refuse'> {
  readonly env: PolicyOptions['env'] & { readonly writePriority: WritePriority };
  readonly opened: (Source | Issuer) & Partial<Checking>;
  readonly host: Host;
  readonly wake: Wake;
  /** The published identity, with the roots that the mesh named for it; read at each start. */
  readonly published: () => Identity | undefined;
  /** The mesh gave an identity: the reconciler must call `judged` with its verdict. */
  readonly offered: () => void;
  /** One of the properties below changed, or a failure that is independent of issuing has ended. */
  readonly changed: () => void;
  readonly failed: (error: Error) => void;
}

/** The newest identity that the mesh gave to one MeshCertificate; runs while this process leads. */
export class IdentityStream {
  readonly policy: CertificatePolicy;
  readonly #options: IdentityStreamOptions;
  #running: Promise<void> | undefined;
  #stop: AbortController | undefined;
  /** The last identity that was accepted. */
  #accepted: Identity | undefined;
  /** The identity that waits for a verdict. */
  #offered: { readonly identity: Identity; readonly judged: (problem: Problem | undefined) => void } | undefined;
  /** When the leaf of the last accepted identity arrived, on the monotonic clock. */
  candidateAt: number | undefined;

  constructor(options: IdentityStreamOptions) {
    this.#options = options;
    const { env, spec, publishedSince, changed } = options;
    const refuse = (identity: Identity) => this.#offer(identity);
    this.policy = new CertificatePolicy({ env, spec, publishedSince, changed, refuse });
  }

  /** The identity that waits for a verdict, or else the last accepted one. */
  get candidate(): Identity | undefined {
    return this.#offered?.identity ?? this.#accepted;
  }

  /**
   * Takes the verdict: why the candidate may not be published, or undefined if it may. A refused candidate is dropped,
   * and the mesh is asked again.
   */
  judged(candidate: Identity | undefined, problem: Problem | undefined): void {
    const offered = this.#offered;
    if (!offered || offered.identity !== candidate) return;
    this.#offered = undefined;
    if (!problem) this.#take(candidate);
    offered.judged(problem);
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  start(): void {
    if (this.#running) return;
    const { env, failed } = this.#options;
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    // Streams report their own failures; an error here is a bug in an adapter, which must not end the rotation.
    const retry = { clock: env.clock, delay: (failures: number) => retryDelay(failures, env.random), failed };
    this.#running = retrying((works) => this.#read(works, signal), retry, signal).catch(() => {});
  }

  /** Stops the stream and forgets the candidate: the next leader requests its own. */
  async stop(): Promise<void> {
    this.#stop?.abort(new Error('no longer followed'));
    await this.#running;
    this.#running = undefined;
    this.policy.retryAt = undefined;
    this.policy.hasTried = false;
    this.#offered = undefined;
    this.#take(undefined);
  }

  async #read(works: () => void, signal: AbortSignal): Promise<void> {
    const { policy } = this;
    const { env, opened, host, wake, published, changed } = this.#options;
    const asking = env.writePriority.coming;
    using attempt = linkedTo(signal);
    const options = { policy, wake, asking, recovered: changed, current: this.candidate ?? published() };
    try {
      for await (const identity of identities(opened, host, options, attempt.signal)) {
        this.#take(identity);
        works();
        changed();
      }
    } finally {
      attempt.abort(new Error('the stream ended'));
    }
  }

  /** Resolves to why the identity may not be used, as the reconciler judges it. */
  async #offer(identity: Identity): Promise<Error | undefined> {
    const judged = new Promise<Problem | undefined>((resolve) => {
      this.#offered = { identity, judged: resolve };
      this.#options.offered();
    });
    // Leaves no listener behind: the stream lives as long as the MeshCertificate.
    const problem = this.#stop ? await unlessAborted(judged, this.#stop.signal) : await judged;
    return problem && Object.assign(new Error(problem.message), { code: problem.code });
  }

  #take(identity: Identity | undefined): void {
    if (identity && !sameLeaf(identity, this.#accepted)) this.candidateAt = this.#options.env.clock.monotonic();
    this.#accepted = identity;
    this.policy.leaf = identity && leafOf(identity);
  }
}

/**
 * What an adapter opens for a MeshCertificate. An adapter that throws here is a source that fails: the failure is
 * reported in the status like any other failure of the mesh, and retried with the same backoff.
 */
export function opening(adapter: Adapter, mesh: MeshCertificate['spec']['mesh'], host: Host): Source | Issuer {
  try {
    return adapter.open(mesh.config, host);
  } catch (cause) {
    // Neither is about a field of the MeshCertificate.
    if (cause instanceof MeshError && /^ERR_ADAPTER_/.test(cause.code)) return failing(cause);
    const why = asError(cause).message;
    const message = `spec.${mesh.name} cannot be used: ${why}; correct that field`;
    return failing(new MeshError('ERR_MESH_CONFIG', message, { cause, retry: { afterMs: 60_000 } }));
  }
}

function failing(error: MeshError): Source {
  return {
    // biome-ignore lint/correctness/useYield: the failure is all there is
    async *watch() {
      throw error;
    },
    async [Symbol.asyncDispose]() {},
  };
}
