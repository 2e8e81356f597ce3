import type { Clock } from './clock.ts';
import { linkedTo } from './linked-signal.ts';

/** A wake-up that may be fired at any time and is remembered until somebody waited for it. */
export class Trigger {
  #fired = false;
  readonly #waiting = new Set<() => void>();

  /** Wakes the one that has waited longest. */
  fire(): void {
    const [wake] = this.#waiting;
    if (wake) wake();
    else this.#fired = true;
  }

  /** Forgets what was fired: the caller looks now. */
  reset(): void {
    this.#fired = false;
  }

  /** Resolves at the next fire, at once when one was missed; rejects with the signal's reason when aborted. */
  wait(signal: AbortSignal): Promise<void> {
    return this.#wait(signal, () => () => {});
  }

  /** Resolves at the next fire or when `ms` have passed; rejects with the signal's reason when aborted. */
  waitFor(ms: number, clock: Pick<Clock, 'after'>, signal: AbortSignal): Promise<void> {
    return this.#wait(signal, (wake) => clock.after(Math.max(0, ms), wake));
  }

  #wait(signal: AbortSignal, begin: (wake: () => void) => () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#fired) {
        this.#fired = false;
        return resolve();
      }
      const over = () => {
        cancel();
        signal.removeEventListener('abort', abort);
        this.#waiting.delete(wake);
      };
      const wake = () => {
        over();
        resolve();
      };
      const abort = () => {
        over();
        reject(signal.reason);
      };
      const cancel = begin(wake);
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.add(wake);
    });
  }
}

/** Changes that any number follow, each at its own pace: those that one was too slow for are joined. */
export class Changes<Key = never> {
  readonly #missed = new Map<Trigger, Set<Key>>();

  /** `keys`: of what changed. */
  announce(keys: Iterable<Key> = []): void {
    const all = [...keys];
    for (const [trigger, missed] of this.#missed) {
      for (const key of all) missed.add(key);
      trigger.fire();
    }
  }

  /** The keys of what changed, after each change; `first()` at once, if it is defined. Ends with the signal. */
  async *follow(signal: AbortSignal, first: () => Iterable<Key> | undefined): AsyncGenerator<ReadonlySet<Key>> {
    const trigger = new Trigger();
    const known = first();
    let keys = new Set(known);
    this.#missed.set(trigger, keys);
    if (known) trigger.fire();
    try {
      for (;;) {
        await trigger.wait(signal);
        const missed = keys;
        keys = new Set();
        this.#missed.set(trigger, keys);
        yield missed;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#missed.delete(trigger);
    }
  }

  /** Resolves after the next change. */
  next(signal: AbortSignal): Promise<void> {
    let looks = 0;
    return this.until(() => looks++ > 0, signal);
  }

  /** Resolves once it holds; looks now and after each change. Rejects with the signal's reason when aborted. */
  async until(holds: () => boolean, signal: AbortSignal): Promise<void> {
    const trigger = new Trigger();
    this.#missed.set(trigger, new Set());
    try {
      while (!holds()) await trigger.wait(signal);
    } finally {
      this.#missed.delete(trigger);
    }
  }
}

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

/** Wakes a renewal loop: to check the clock again, or to renew now. */
export class Wake extends Trigger {
  #renewal = false;

  renew(): void {
    this.#renewal = true;
    this.fire();
  }

  /** Whether a renewal was requested since the last call. */
  takeRenewal(): boolean {
    const was = this.#renewal;
    this.#renewal = false;
    return was;
  }
}
