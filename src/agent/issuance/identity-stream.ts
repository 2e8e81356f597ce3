import { linkedTo, unlessAborted } from '../../async/linked-signal.ts';
import { asError, retrying } from '../../async/retrying.ts';
import type { Wake } from '../../async/wake.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { retryDelay } from '../../core/backoff.ts';
import type { Problem } from '../../core/problem.ts';
import type { Adapter, Checking, Host, Issuer, Source } from '../../mesh/adapter.ts';
import { MeshError } from '../../mesh/error.ts';
import { type Identity, leafOf, sameLeaf } from '../../mesh/identity.ts';

import type { WritePriority } from '../publish/write-priority.ts';
import { identities } from './identities.ts';
import { CertificatePolicy, type PolicyOptions } from './renewal-policy.ts';

export interface IdentityStreamOptions extends Omit<PolicyOptions, 'refuse'> {
  readonly env: PolicyOptions['env'] & { readonly writePriority: WritePriority };
  readonly opened: (Source | Issuer) & Partial<Checking>;
  readonly host: Host;
  readonly wake: Wake;
  /** The published identity, with the roots that the mesh named for it; read at each start. */
  readonly published: () => Identity | undefined;
  /** The mesh gave an identity: the reconciler must call `judged` with its verdict. */
  readonly offered: () => void;
  /** One of the properties below changed. */
  readonly changed: () => void;
  /** A failure that is independent of issuing has ended. */
  readonly recovered: () => void;
  readonly failed: (error: Error) => void;
}

/** The newest identity that the mesh gave to one MeshCertificate; runs while this process leads. */
export class IdentityStream {
  readonly #options: IdentityStreamOptions;
  readonly #policy: CertificatePolicy;
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
    this.#policy = new CertificatePolicy({ env, spec, publishedSince, changed, refuse });
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

  get breakerOpenMs(): number {
    return this.#policy.breakerOpenMs;
  }

  /** When the mesh is asked again after a failure, epoch ms; undefined while nothing fails. */
  get retryAt(): number | undefined {
    return this.#policy.retryAt;
  }

  /** The mesh has answered or failed since the start. */
  get hasTried(): boolean {
    return this.#policy.hasTried;
  }

  get planned(): CertificatePolicy['planned'] {
    return this.#policy.planned;
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  start(): void {
    if (this.#running) return;
    this.#stop = new AbortController();
    this.#running = this.#follow(this.#stop.signal);
  }

  /** Stops the stream and forgets the candidate: the next leader requests its own. */
  async stop(): Promise<void> {
    this.#stop?.abort(new Error('no longer followed'));
    await this.#running;
    this.#running = undefined;
    this.#policy.retryAt = undefined;
    this.#policy.hasTried = false;
    this.#offered = undefined;
    this.#take(undefined);
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { env, failed } = this.#options;
    // Streams report their own failures; an error here is a bug in an adapter, which must not end the rotation.
    const retry = { clock: env.clock, delay: (failures: number) => retryDelay(failures, env.random), failed };
    await retrying((works) => this.#read(works, signal), retry, signal).catch(() => {});
  }

  async #read(works: () => void, outer: AbortSignal): Promise<void> {
    const { env, opened, host, wake, published, changed, recovered } = this.#options;
    const { coming } = env.writePriority;
    const options = { policy: this.#policy, wake, asking: coming, recovered, current: this.candidate ?? published() };
    using attempt = linkedTo(outer);
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

  async #offer(identity: Identity): Promise<Problem | undefined> {
    const judged = new Promise<Problem | undefined>((resolve) => {
      this.#offered = { identity, judged: resolve };
      this.#options.offered();
    });
    // Leaves no listener behind: the stream lives as long as the MeshCertificate.
    return this.#stop ? await unlessAborted(judged, this.#stop.signal) : await judged;
  }

  #take(identity: Identity | undefined): void {
    if (identity && !sameLeaf(identity, this.#accepted)) this.candidateAt = this.#options.env.clock.monotonic();
    this.#accepted = identity;
    this.#policy.leaf = identity && leafOf(identity);
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
