import type { Clock } from '../../src/async/clock.ts';
import { TokenBucket } from '../../src/async/token-bucket.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import type { HttpAnswer } from './http.ts';

/** Below 5 min, the common limit of Consul, of proxies and of Node. */
export const LONGEST_WAIT_MS = 4 * 60_000;
/**
 * Servers add up to a sixteenth of the wait, and hold a request while there is no leader: for `rpc_hold_timeout` (7 s),
 * and then for one more pause of at most the same length. A client that gives up before that never learns that the
 * leader is missing.
 */
const SLACK_MS = 20_000;

/** Consul's advice for blocking queries, whatever the cause of the spinning. */
export const PACE = { burst: 2, refillMs: 15_000 };

export interface Ask {
  /** `index` and `wait` as they go into the query; absent: answer at once. */
  readonly query: { readonly index?: string; readonly wait?: string };
  readonly timeoutMs: number;
}

/**
 * Consul's rules for blocking queries, for one path: the index is opaque, it is reset when it went backwards or after
 * an error, and the loop is rate-limited whatever the server does.
 */
export class BlockingQuery {
  readonly #ask: (ask: Ask, signal: AbortSignal) => Promise<HttpAnswer>;
  readonly #bucket: TokenBucket;
  #index: bigint | undefined;

  constructor(ask: (ask: Ask, signal: AbortSignal) => Promise<HttpAnswer>, clock: Clock) {
    this.#ask = ask;
    this.#bucket = new TokenBucket({ clock, ...PACE });
  }

  /** The next answer that is at most `waitMs` old; an answer does not prove a change. */
  async next(waitMs: number, signal: AbortSignal): Promise<string> {
    await this.#bucket.take(signal);
    const before = this.#index;
    this.#index = undefined;
    const wait = Math.max(1, Math.round(Math.min(waitMs, LONGEST_WAIT_MS) / 1000));
    const blocks = before !== undefined && waitMs > 0;
    const answer = await this.#ask(
      blocks
        ? { query: { index: `${before}`, wait: `${wait}s` }, timeoutMs: (wait * 1000 * 17) / 16 + SLACK_MS }
        : { query: {}, timeoutMs: SLACK_MS },
      signal,
    );
    const after = parseIndex(answer.index);
    if (after !== undefined && (before === undefined || after >= before)) this.#index = after;
    return answer.body;
  }
}

/** At least 1: an index of 0 would turn every request into a plain one. */
function parseIndex(text: string | undefined): bigint | undefined {
  if (text === undefined || !/^\d{1,20}$/.test(text)) return undefined;
  const value = BigInt(text);
  return value < 1n ? 1n : value;
}

/**
 * Agents renew at a random point in 60–90 % of a leaf's life; past this share we request without waiting for a
 * notification.
 */
const DUE = 0.7;
/** Once a leaf is due, the interval between requests. */
const POLL_SHARE = 0.02;
const SHORTEST_POLL_MS = 15_000;
/** Below this lifetime an agent makes a new leaf at every request: then we request one only when it is due. */
const SHORT_LIFE_MS = 10 * 60_000;

/** What to do next about a leaf: block on the index this long, or sleep and then request the current one. */
export type LeafStep = { readonly block: number } | { readonly sleep: number };

export function nextLeafStep(leaf: Certificate, now: number): LeafStep {
  const life = leaf.notAfter - leaf.notBefore;
  const left = leaf.notBefore + life * DUE - now;
  if (left <= 0) return { sleep: Math.min(Math.max(life * POLL_SHARE, SHORTEST_POLL_MS), LONGEST_WAIT_MS) };
  if (life < SHORT_LIFE_MS) return { sleep: Math.min(left, LONGEST_WAIT_MS) };
  return { block: Math.min(left, LONGEST_WAIT_MS) };
}
