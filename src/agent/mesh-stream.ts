import type { MeshCertificateSpec } from '../config/mesh-certificate.ts';
import { retryDelay } from '../core/backoff.ts';
import { AttemptBudget } from '../core/breaker.ts';
import type { Host, Issuer, Probing, Source } from '../mesh/adapter.ts';
import { type Identity, leafOf, sameLeaf } from '../mesh/identity.ts';
import { type LinkedSignal, linkedTo } from '../mesh/linked-signal.ts';
import { asError } from '../mesh/renewing.ts';
import type { Trigger } from '../mesh/trigger.ts';
import type { Problem } from './decide.ts';
import type { Environment } from './environment.ts';
import { identities } from './identities.ts';
import { renewalPolicy } from './policy.ts';

export interface MeshStreamOptions {
  readonly env: Pick<Environment, 'clock' | 'random' | 'fleet'>;
  readonly spec: Pick<MeshCertificateSpec, 'renewal'>;
  readonly opened: (Source | Issuer) & Partial<Probing>;
  readonly host: Host;
  readonly renew: Trigger;
  readonly recheck: Trigger;
  /** What stands in the cluster, with the roots that the mesh named for it; asked at each start. */
  readonly standing: () => Identity | undefined;
  /** When the leaf that stands came, epoch ms, where that is known. */
  readonly standingSince: () => number | undefined;
  readonly refuse: (identity: Identity) => Problem | undefined;
  /** Something below changed. */
  readonly changed: () => void;
  readonly failed: (error: Error) => void;
}

/** The newest identity that the mesh gave to one MeshCertificate, followed while this process leads. */
export class MeshStream {
  readonly #options: MeshStreamOptions;
  readonly #budget = new AttemptBudget();
  #running: { readonly stop: LinkedSignal; readonly done: Promise<void> } | undefined;
  candidate: Identity | undefined;
  /** When the candidate's leaf came, on the monotonic clock. */
  candidateAt: number | undefined;
  /** How long the budget on attempts keeps the next one back; 0 when it does not. */
  breakerOpenMs = 0;
  /** When the leaf of this fingerprint is due, epoch ms. */
  planned: { readonly fingerprint: string; readonly due: number } | undefined;

  constructor(options: MeshStreamOptions) {
    this.#options = options;
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  start(signal: AbortSignal): void {
    if (this.#running) return;
    const stop = linkedTo(signal);
    const done = this.#follow(stop.signal).finally(() => stop[Symbol.dispose]());
    this.#running = { stop, done };
  }

  /** Ends it and forgets the candidate: whoever leads next asks for its own. */
  async stop(): Promise<void> {
    const running = this.#running;
    running?.stop.abort(new Error('no longer followed'));
    await running?.done;
    this.#running = undefined;
    this.candidate = undefined;
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { env, spec, opened, host, renew, recheck, standing, standingSince, refuse, changed, failed } = this.#options;
    const { clock, random } = env;
    const policy = renewalPolicy({
      spec,
      clock,
      random,
      budget: this.#budget,
      fleet: env.fleet,
      standingSince,
      admitted: (waitMs) => {
        this.breakerOpenMs = waitMs;
        if (waitMs > 0) changed();
      },
      refuse: (identity) => {
        const problem = refuse(identity);
        return problem && Object.assign(new Error(problem.message), { code: problem.code });
      },
      planned: (fingerprint, due) => {
        this.planned = { fingerprint, due };
      },
      current: () => this.candidate && leafOf(this.candidate),
    });
    for (let failures = 0; !signal.aborted; ) {
      const options = { policy, renew, recheck, current: this.candidate ?? standing() };
      try {
        for await (const identity of identities(opened, host, options, signal)) {
          if (!sameLeaf(identity, this.candidate)) this.candidateAt = clock.monotonic();
          this.candidate = identity;
          failures = 0;
          changed();
        }
      } catch (error) {
        // Streams report what they know; this one is a bug in an adapter, which must not end the rotation.
        if (signal.aborted) return;
        failures += 1;
        failed(asError(error));
        await clock.sleep(retryDelay(failures, random), signal).catch(() => {});
      }
    }
  }
}
