import type { Clock } from './clock.ts';

export interface RetryPolicy {
  readonly clock: Pick<Clock, 'sleep'>;
  /** Milliseconds to wait after this many failures in a row, counted from 1. */
  delay(failures: number, error: Error): number;
  /** Called for each failure, before the wait. */
  failed(error: Error, failures: number): void;
  /** Called when an attempt works after a failure. */
  recovered?(): void;
}

/**
 * Attempts until an attempt returns, and resolves to what it returned. An attempt that takes long, such as one that
 * reads a stream, calls `works` whenever it works: the next failure counts as the first then. Rejects with the signal's
 * reason, and with nothing else.
 *
 * @example
 * await retrying(() => kube.apply(object, options, signal), { clock, delay, failed: report }, signal);
 */
export async function retrying<T>(
  attempt: (works: () => void) => Promise<T>,
  retry: RetryPolicy,
  signal: AbortSignal,
): Promise<T> {
  let failures = 0;
  const works = () => {
    if (failures > 0) retry.recovered?.();
    failures = 0;
  };
  for (;;) {
    signal.throwIfAborted();
    try {
      const result = await attempt(works);
      works();
      return result;
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      failures += 1;
      const error = asError(cause);
      retry.failed(error, failures);
      await retry.clock.sleep(retry.delay(failures, error), signal);
    }
  }
}

/** Reads a stream until the signal. It is opened again after a failure, and after its end, which counts as one. */
export async function followed<T>(
  stream: { open(): AsyncIterable<T>; each(value: T): void; ended(): Error },
  retry: RetryPolicy,
  signal: AbortSignal,
): Promise<void> {
  const read = async (works: () => void): Promise<never> => {
    for await (const value of stream.open()) {
      works();
      stream.each(value);
    }
    throw stream.ended();
  };
  await retrying(read, retry, signal).catch(() => {});
}

export const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));
