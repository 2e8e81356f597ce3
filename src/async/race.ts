import { linkedTo } from './linked-signal.ts';
import type { Trigger } from './trigger.ts';

/** Runs `work` until it is done or the trigger fires; `undefined` in the latter case. */
export async function unlessFired<T>(
  trigger: Trigger,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  using over = linkedTo(signal);
  const stop = over.signal;
  const fired = trigger.wait(stop).then(() => undefined);
  const done = work(stop);
  try {
    return await Promise.race([done, fired]);
  } finally {
    over.abort(new Error('no longer waited for'));
    await Promise.allSettled([done, fired]);
  }
}

/** The outcome of the work, or the signal's reason if that comes first; the work itself continues. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
