import { retryDelay } from '../../core/backoff.ts';
import { keyOf, type ObjectRef } from '../../core/object.ts';
import type { Problem } from '../../core/problem.ts';
import type { Environment } from './environment.ts';

/** Backs off after writes that failed: of some objects, or of all. Times on the monotonic clock. */
export class WriteAttempts {
  readonly #env: Pick<Environment, 'clock' | 'random'>;
  #failures = 0;
  #retryAt: number | undefined;
  /** The objects that are not tried before; undefined: none is. */
  #held: ReadonlySet<string> | undefined;
  failure: Problem | undefined;

  constructor(env: Pick<Environment, 'clock' | 'random'>) {
    this.#env = env;
  }

  get #waiting(): boolean {
    return this.#retryAt !== undefined && this.#env.clock.monotonic() < this.#retryAt;
  }

  /** Nothing may be written yet. */
  get blocked(): boolean {
    return this.#waiting && this.#held === undefined;
  }

  /** This object may not be written yet. */
  readonly isHeld = (ref: ObjectRef): boolean => this.#waiting && this.#held?.has(keyOf(ref)) !== false;

  /** Epoch ms of the next attempt. */
  get retryAt(): number | undefined {
    const { clock } = this.#env;
    return this.#retryAt === undefined ? undefined : clock.now() + this.#retryAt - clock.monotonic();
  }

  /** Whatever was tried: what is held has still failed. */
  succeeded(): void {
    if (this.#waiting) return;
    this.#failures = 0;
    this.#retryAt = undefined;
    this.failure = undefined;
  }

  /**
   * The plan refused to write. No request was made, so no backoff is needed: a change of the objects triggers the next
   * attempt.
   */
  refused(problem: Problem): void {
    this.succeeded();
    this.failure = problem;
  }

  /** The API server answers again. True: the next attempt need not wait. */
  reachable(): boolean {
    if (this.failure?.code !== 'ERR_KUBE_UNREACHABLE') return false;
    this.#retryAt = undefined;
    return true;
  }

  /** `remainingMs`: remaining life of the certificate that a success would replace. `held`: what failed; absent: all. */
  failed(problem: Problem, remainingMs: number | undefined, held?: readonly ObjectRef[]): void {
    const earlier = this.#waiting ? this.#held : undefined;
    this.#held = held && new Set([...(earlier ?? []), ...held.map(keyOf)]);
    this.#failures += 1;
    this.failure = problem;
    const { clock, random } = this.#env;
    this.#retryAt = clock.monotonic() + retryDelay(this.#failures, random, { remainingMs });
  }
}
