import type { Clock } from '../../async/clock.ts';
import { linkedTo } from '../../async/linked-signal.ts';
import { retryDelay } from '../../core/backoff.ts';
import type { Revoking } from '../../mesh/adapter.ts';
import { asError } from '../../mesh/renewing.ts';
import type { Crl } from '../../pki/crl.ts';

export interface CrlStreamOptions {
  readonly env: { readonly clock: Clock; readonly random: () => number };
  readonly opened: Revoking;
  readonly changed: () => void;
  readonly failed: (error: Error) => void;
}

/** The newest CRLs of the mesh. What was read last counts until something else is read: each CRL says when it ends. */
export class CrlStream {
  readonly #options: CrlStreamOptions;
  /** Undefined until the mesh has answered. */
  latest: readonly Crl[] | undefined;

  constructor(options: CrlStreamOptions) {
    this.#options = options;
  }

  /** Follows until the signal; failures are reported and retried. */
  async run(signal: AbortSignal): Promise<void> {
    const { env, changed, failed } = this.#options;
    for (let failures = 0; !signal.aborted; ) {
      try {
        await this.#follow(signal, () => {
          failures = 0;
          changed();
        });
      } catch (error) {
        if (signal.aborted) return;
        failed(asError(error));
      }
      failures += 1;
      await env.clock.sleep(retryDelay(failures, env.random), signal).catch(() => {});
    }
  }

  async #follow(signal: AbortSignal, news: () => void): Promise<void> {
    using linked = linkedTo(signal);
    for await (const crls of this.#options.opened.crls(linked.signal)) {
      this.latest = crls;
      news();
    }
  }
}
