import type { Clock } from '../async/clock.ts';
import { limitedTo, unlessAborted } from '../async/linked-signal.ts';
import { MeshError, UNRESOLVED } from './error.ts';

/** One thing that an adapter found out about its own mesh, for `doctor`. */
export interface ExaminedCheck {
  /** Stable, such as `mesh-token`. */
  readonly code: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  /** What was observed; for a failure, also the next step. */
  readonly message: string;
}

/** Thrown by a Host for what cannot be known from where doctor runs. It says nothing about whether it works. */
export class NotSeen extends Error {
  override readonly name = 'NotSeen';
}

export interface ExaminerOptions {
  readonly clock: Pick<Clock, 'after'>;
  /** For each check. */
  readonly limitMs: number;
  /** Whether a certificate may be requested; it is discarded. */
  readonly issue: boolean;
  /** Whether this process has the agent's files and sockets. */
  readonly here: boolean;
  readonly signal: AbortSignal;
  readonly tell: (check: ExaminedCheck) => void;
}

/** Runs an adapter's checks, each under a time limit, and reports what each found. */
export class Examiner {
  readonly issue: boolean;
  readonly here: boolean;
  readonly #options: ExaminerOptions;

  constructor(options: ExaminerOptions) {
    this.#options = options;
    this.issue = options.issue;
    this.here = options.here;
  }

  /** The result; undefined when the check failed or was skipped, which was reported. */
  async look<T>(
    code: string,
    run: (signal: AbortSignal) => Promise<T>,
    describe: (found: T) => string,
  ): Promise<T | undefined> {
    const { clock, limitMs, signal, tell } = this.#options;
    const late = () => new Error(`no answer within ${limitMs / 1000} s; check the address, and network policies`);
    using limit = limitedTo(clock, limitMs, late, signal);
    try {
      const found = await unlessAborted(run(limit.signal), limit.signal);
      tell({ code, state: 'passed', message: describe(found) });
      return found;
    } catch (error) {
      signal.throwIfAborted();
      const reason = limit.signal.aborted ? limit.signal.reason : error;
      if (reason instanceof NotSeen) this.skip(code, messageOf(reason));
      else if (!this.here && isUnresolved(reason)) this.skip(code, `${messageOf(reason)}; ${ELSEWHERE}`);
      else this.fail(code, messageOf(reason));
      return undefined;
    }
  }

  fail(code: string, message: string): void {
    this.#options.tell({ code, state: 'failed', message });
  }

  skip(code: string, message: string): void {
    this.#options.tell({ code, state: 'skipped', message });
  }
}

const ELSEWHERE = 'names of the cluster resolve only in its pods, so run meshcert doctor in a pod to check this';

const isUnresolved = (error: unknown): boolean => error instanceof MeshError && error.message.includes(UNRESOLVED);

const messageOf = (error: unknown): string =>
  error instanceof MeshError
    ? `${error.code}: ${error.message}`
    : error instanceof Error
      ? error.message
      : String(error);
