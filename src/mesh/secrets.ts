import { createHash } from 'node:crypto';
import { systemClock } from '../async/clock.ts';

const REDACTED = '[redacted]';
const HOUR_MS = 3_600_000;
/** How long a value counts as live after its last use, if its expiry is unknown. */
const LIVE_MS = 24 * HOUR_MS;
/** Shorter values occur in ordinary words, and redacting those would make messages unreadable. */
const SHORTEST = 6;
/** Values are found by their last characters, because tokens of one issuer all begin with the same ones. */
const TAIL = 6;
/** More than any process uses at a time; the least recently used are evicted first. */
const MOST = 20_000;

interface HeldSecret {
  readonly length: number;
  readonly digest: string;
  /** On the monotonic clock. */
  readonly until: number;
}

/**
 * The secret values that this process uses now: tokens, passwords, passphrases. Of each only its length, its last
 * characters and a digest are stored. One registry for the process, because a registry that has to be passed around
 * is missing exactly where a new sink forgets it.
 */
class LiveSecrets {
  /** By tail, then by digest; the order is that of use. */
  readonly #byTail = new Map<string, Map<string, HeldSecret>>();
  readonly #order = new Map<string, string>();

  hold(value: string, lifeMs: number): void {
    for (const form of formsOf(value)) {
      const tail = form.slice(-TAIL);
      const digest = digestOf(form);
      const same = this.#byTail.get(tail) ?? new Map<string, HeldSecret>();
      same.set(digest, { length: form.length, digest, until: systemClock.monotonic() + lifeMs });
      this.#byTail.set(tail, same);
      this.#order.delete(digest);
      this.#order.set(digest, tail);
    }
    for (const [digest, tail] of this.#order) {
      if (this.#order.size <= MOST && !this.#isOver(digest, tail)) return;
      this.#drop(digest, tail);
    }
  }

  without(text: string): string {
    if (this.#order.size === 0 || text.length < SHORTEST) return text;
    let clean = '';
    let copied = 0;
    for (let end = TAIL; end <= text.length; end += 1) {
      const start = this.#startOf(text, end, copied);
      if (start === undefined) continue;
      clean += text.slice(copied, start) + REDACTED;
      copied = end;
      end += TAIL - 1;
    }
    return copied === 0 ? text : clean + text.slice(copied);
  }

  /** Where the longest live value that ends at `end` begins. */
  #startOf(text: string, end: number, from: number): number | undefined {
    const same = this.#byTail.get(text.slice(end - TAIL, end));
    if (!same) return undefined;
    const now = systemClock.monotonic();
    const starts = [...same.values()]
      .filter(({ length, until }) => until > now && end - length >= from)
      .filter(({ length, digest }) => digestOf(text.slice(end - length, end)) === digest)
      .map(({ length }) => end - length);
    return starts.length === 0 ? undefined : Math.min(...starts);
  }

  #isOver(digest: string, tail: string): boolean {
    const held = this.#byTail.get(tail)?.get(digest);
    return held === undefined || held.until <= systemClock.monotonic();
  }

  #drop(digest: string, tail: string): void {
    this.#order.delete(digest);
    const same = this.#byTail.get(tail);
    same?.delete(digest);
    if (same?.size === 0) this.#byTail.delete(tail);
  }
}

const live = new LiveSecrets();

/**
 * From now on no log line, status, Event, page or message of this process shows the value, nor its base64 or
 * URL-encoded form. `lifeMs` is how long the value remains valid; it counts from the last call. Values of fewer than 6
 * characters are ignored.
 */
export function holdSecret(value: string, lifeMs = LIVE_MS): void {
  if (value.length >= SHORTEST) live.hold(value, lifeMs);
}

const PRIVATE_PEM = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g;
/** PEM as the API server stores it in a Secret: base64 of `-----BEGIN `. */
const ENCODED_PEM = /LS0tLS1CRUdJTi[A-Za-z0-9+/=]{16,}/g;
const JWT = /\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/g;
const BEARER = /\b(bearer\s+)[\w.~+/-]{8,}=*/gi;

/** The text without any live secret, and without anything that looks like a private key or a token. */
export function redactText(text: string): string {
  return live
    .without(text)
    .replace(PRIVATE_PEM, REDACTED)
    .replace(ENCODED_PEM, REDACTED)
    .replace(JWT, REDACTED)
    .replace(BEARER, `$1${REDACTED}`);
}

/** Enough for the longest of our own sentences with a command in it. */
const LONGEST_MESSAGE = 1_000;

/**
 * A message that is safe for a status, an Event or a page: redacted, on one line, without control characters, cut to
 * 1,000.
 */
export function safeMessage(text: string): string {
  const line = redactText(text)
    .replace(/[\s\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ')
    .trim();
  return line.length <= LONGEST_MESSAGE ? line : `${line.slice(0, LONGEST_MESSAGE - 1)}…`;
}

function formsOf(value: string): ReadonlySet<string> {
  const encoded = Buffer.from(value, 'utf8').toString('base64').replace(/=+$/, '');
  return new Set([value, encoded, encodeURIComponent(value)]);
}

const digestOf = (text: string): string => createHash('sha256').update(text).digest('base64');
