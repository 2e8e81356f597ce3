import type { Clock } from '../../async/clock.ts';
import { followed } from '../../async/retrying.ts';
import { retryDelay } from '../../core/backoff.ts';
import type { Revoking } from '../../mesh/adapter.ts';
import { MeshError } from '../../mesh/error.ts';
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
  run(signal: AbortSignal): Promise<void> {
    const { env, opened, changed, failed } = this.#options;
    return followed(
      {
        open: () => opened.crls(signal),
        each: (crls) => {
          this.latest = crls;
          changed();
        },
        ended: () => new MeshError('ERR_MESH_UNAVAILABLE', 'the stream of CRLs ended; it is opened again'),
      },
      { clock: env.clock, delay: (failures) => retryDelay(failures, env.random), failed },
      signal,
    );
  }
}
