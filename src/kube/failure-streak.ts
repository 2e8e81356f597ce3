import type { Clock } from '../async/clock.ts';
import { codeOf } from '../mesh/error.ts';
import type { Log } from '../mesh/log.ts';

/**
 * A lasting failure is logged again at warn this often: rarely enough to read, often enough for the last page of a log.
 */
export const REPEAT_MS = 600_000;

/**
 * Logs the failures of a repeated operation: at warn when they begin, when their code changes and every ten minutes,
 * else at debug; and at info when they end. Errors with a code are logged without a stack.
 */
export class FailureStreak {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #fields: object;
  #times = 0;
  #code = '';
  #loggedAt = 0;

  /** `fields` are added to each line. */
  constructor(log: Log, clock: Clock, fields: object) {
    this.#log = log;
    this.#clock = clock;
    this.#fields = fields;
  }

  failed(error: Error, what: string): void {
    const code = codeOf(error, '');
    const now = this.#clock.monotonic();
    const isNews = this.#times === 0 || code !== this.#code || now - this.#loggedAt >= REPEAT_MS;
    this.#times += 1;
    this.#code = code;
    if (isNews) this.#loggedAt = now;
    const fields = { ...this.#fields, ...(code === '' ? { err: error } : { code }), times: this.#times };
    this.#log[isNews ? 'warn' : 'debug'](fields, `${what}: ${error.message}`);
  }

  over(what: string): void {
    if (this.#times === 0) return;
    this.#log.info({ ...this.#fields, failures: this.#times }, what);
    this.#times = 0;
  }
}
