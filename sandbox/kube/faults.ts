import type { Asked } from './schema/request.ts';

/** A fault, and the requests that it affects. */
export interface Fault {
  /** Absent: every request for a resource. */
  readonly match?: (asked: Asked) => boolean;
  /** How often; absent: until lifted. */
  readonly times?: number;
  /** Answer this instead, without doing anything. */
  readonly status?: number;
  readonly retryAfterSeconds?: number;
  /** Cut the connection before the work is done, or after it, so that the caller cannot know whether it was done. */
  readonly cut?: 'before' | 'after';
  readonly latencyMs?: number;
  /** Called when a request meets this fault, before anything else. */
  readonly met?: (asked: Asked) => void | Promise<void>;
}

export class Faults {
  #rules = new Set<{ fault: Fault; left: number }>();

  /** Returns a function that removes the fault. */
  add(fault: Fault): () => void {
    const rule = { fault, left: fault.times ?? Number.POSITIVE_INFINITY };
    this.#rules.add(rule);
    return () => this.#rules.delete(rule);
  }

  clear(): void {
    this.#rules.clear();
  }

  /** The first fault that matches, which uses up one of its times. */
  next(asked: Asked): Fault | undefined {
    for (const rule of this.#rules) {
      if (rule.fault.match && !rule.fault.match(asked)) continue;
      rule.left -= 1;
      if (rule.left <= 0) this.#rules.delete(rule);
      return rule.fault;
    }
    return undefined;
  }
}
