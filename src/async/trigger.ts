import type { Clock } from './clock.ts';

const NOBODY: readonly Wait[] = [];

/** A wake-up that may be fired at any time and is remembered until somebody waited for it. */
export class Trigger {
  #fired = false;
  // Mostly one. A thousand MeshCertificates have some each, and a Set weighs more than all else of this.
  #waits = NOBODY;

  fire(): void {
    this.#fired = true;
    for (const wait of this.#waits) if (this.#take()) wait.end();
  }

  /** Forgets what was fired: the caller looks now. */
  reset(): void {
    this.#fired = false;
  }

  /** Resolves at the next fire, at once when one was missed; rejects with the signal's reason when aborted. */
  wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => void this.#begin(resolve, reject, signal));
  }

  /** Resolves at the next fire or when `ms` have passed; rejects with the signal's reason when aborted. */
  waitFor(ms: number, clock: Pick<Clock, 'after'>, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const wait = this.#begin(resolve, reject, signal);
      if (wait) wait.cancel = clock.after(Math.max(0, ms), () => wait.end());
    });
  }

  #begin(resolve: () => void, reject: (reason: unknown) => void, signal: AbortSignal): Wait | undefined {
    if (signal.aborted) reject(signal.reason);
    else if (this.#take()) resolve();
    else {
      const wait = new Wait(resolve, reject, signal, this);
      // Not spread, which leaves room for 16 more.
      this.#waits = this.#waits.concat(wait);
      return wait;
    }
    return undefined;
  }

  #take(): boolean {
    const was = this.#fired;
    this.#fired = false;
    return was;
  }

  /** For its own waits, as they end. */
  forget(wait: Wait): void {
    const others = this.#waits.filter((one) => one !== wait);
    this.#waits = others.length === 0 ? NOBODY : others;
  }
}

/** Changes that any number may wait for. */
export class Changes {
  readonly #waiting = new Set<Trigger>();

  announce(): void {
    for (const trigger of this.#waiting) trigger.fire();
  }

  /** Resolves after the next change. */
  next(signal: AbortSignal): Promise<void> {
    let looks = 0;
    return this.until(() => looks++ > 0, signal);
  }

  /** Resolves once it holds; looks now and after each change. Rejects with the signal's reason when aborted. */
  async until(holds: () => boolean, signal: AbortSignal): Promise<void> {
    const trigger = new Trigger();
    this.#waiting.add(trigger);
    try {
      while (!holds()) await trigger.wait(signal);
    } finally {
      this.#waiting.delete(trigger);
    }
  }
}

class Wait {
  readonly #resolve: () => void;
  readonly #reject: (reason: unknown) => void;
  readonly #signal: AbortSignal;
  readonly #of: Trigger;
  /** Takes back the timer. */
  cancel: (() => void) | undefined;

  constructor(resolve: () => void, reject: (reason: unknown) => void, signal: AbortSignal, of: Trigger) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#signal = signal;
    this.#of = of;
    signal.addEventListener('abort', this, { once: true });
  }

  end(): void {
    this.#over();
    this.#resolve();
  }

  handleEvent(): void {
    this.#over();
    this.#reject(this.#signal.reason);
  }

  #over(): void {
    this.cancel?.();
    this.#signal.removeEventListener('abort', this);
    this.#of.forget(this);
  }
}
