import type { Fence } from '../publish/publisher.ts';

/** Which MeshCertificates this process may write for. `key` is `keyOf` of its ref. */
export interface Leadership {
  leads(key: string): boolean;
  fence(key: string): Fence;
  /** Called after each gain or loss. */
  onChange(listener: () => void): void;
  /** Campaigns until the signal is aborted, then releases the Leases. */
  run(signal: AbortSignal): Promise<void>;
  /** For status and metrics. */
  readonly held: readonly string[];
}

/** One process, no election: a one-shot run, a dry run, a sidecar that owns its publication alone. */
export const alone: Leadership = {
  leads: () => true,
  fence: () => ({ check() {} }),
  onChange() {},
  run: (signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    }),
  held: [],
};
