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
/**
 * The work that one text may cause, in hashed bytes: about 10 ms. Values that a hostile server has issued may end alike
 * and occur often; ordinary ones take less than a hundredth.
 */
const MOST_WORK = 4_000_000;
/** What one digest costs however short the value is, in hashed bytes. */
const DIGEST_WORK = 500;
/** How much of one text is read: more than any message shows. */
const LONGEST_TEXT = 16_384;

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
  #work = 0;
  /** Of all values so far, in characters. */
  longest = 0;

  hold(value: string, lifeMs: number): void {
    for (const form of formsOf(value)) {
      const tail = form.slice(-TAIL);
      const digest = digestOf(form);
      const same = this.#byTail.get(tail) ?? new Map<string, HeldSecret>();
      same.set(digest, { length: form.length, digest, until: systemClock.monotonic() + lifeMs });
      this.#byTail.set(tail, same);
      this.#order.delete(digest);
      this.#order.set(digest, tail);
      this.longest = Math.max(this.longest, form.length);
    }
    for (const [digest, tail] of this.#order) {
      if (this.#order.size <= MOST && !this.#isOver(digest, tail)) return;
      this.#drop(digest, tail);
    }
  }

  /** A text that takes too much work is redacted as a whole. */
  without(text: string): string {
    if (this.#order.size === 0 || text.length < SHORTEST) return text;
    this.#work = 0;
    let clean = '';
    let copied = 0;
    for (let end = TAIL; end <= text.length; end += 1) {
      const start = this.#startOf(text, end, copied);
      if (this.#work > MOST_WORK) return REDACTED;
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
    let first: number | undefined;
    for (const { length, digest, until } of same.values()) {
      this.#work += 1;
      const start = end - length;
      if (until <= now || start < from || start >= (first ?? end)) continue;
      this.#work += DIGEST_WORK + length;
      if (this.#work > MOST_WORK) return undefined;
      if (digestOf(text.slice(start, end)) === digest) first = start;
    }
    return first;
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
const BEARER = /\b(bearer\s+)[\w.~+/-]{8,}=*/gi;
/** What a JWT consists of, whether it is one or not: a pattern of its parts would be tried at each of their characters. */
const JWT_CHARACTERS = /[\w.-]+/g;
const JWT_START = 'eyJ';
/** Of header and payload; shorter ones say nothing. */
const SHORTEST_PART = 8;

/**
 * The text without any live secret, and without anything that looks like a private key or a token. Of a text of more
 * than 16,384 characters only the beginning is read and returned; a word that the cut goes through may be the beginning
 * of a secret, so it is left out. Takes linear time.
 */
export function redactText(text: string): string {
  const isCut = text.length > LONGEST_TEXT;
  const clean = live
    .without(isCut ? text.slice(0, LONGEST_TEXT) : text)
    .replace(PRIVATE_PEM, REDACTED)
    .replace(ENCODED_PEM, REDACTED)
    .replace(JWT_CHARACTERS, withoutJwt)
    .replace(BEARER, `$1${REDACTED}`);
  return isCut ? `${withoutLastWord(clean.slice(0, Math.max(0, clean.length - live.longest)))}…` : clean;
}

function withoutJwt(word: string): string {
  if (!word.includes(JWT_START)) return word;
  const parts = word.split('.');
  const clean: string[] = [];
  for (let at = 0; at < parts.length; at++) {
    const [header = '', payload = '', signature] = parts.slice(at, at + 3);
    const start = header.indexOf(JWT_START);
    const isLong = header.length - start >= JWT_START.length + SHORTEST_PART && payload.length >= SHORTEST_PART;
    if (start === -1 || !isLong || signature === undefined) {
      clean.push(header);
      continue;
    }
    clean.push(header.slice(0, start) + REDACTED);
    at += 2;
  }
  return clean.join('.');
}

function withoutLastWord(text: string): string {
  let end = text.length;
  while (end > 0 && text.charAt(end - 1).trim() !== '') end -= 1;
  return text.slice(0, end);
}

/** Controls, line breaks, marks that change the direction of text, and halves of a character. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * The one form in which text of others reaches a terminal: redacted, cut to 16,384 characters, and on one line, so that
 * it can neither control the terminal nor look like another line.
 */
export const printable = (text: string): string => redactText(text).replace(UNPRINTABLE, ' ');

/** Enough for the longest of our own sentences with a command in it. */
const LONGEST_MESSAGE = 1_000;

/**
 * A message that is safe for a status, an Event or a page: redacted, on one line, without control characters, cut to
 * 1,000.
 */
export function safeMessage(text: string): string {
  const line = printable(text).replace(/\s+/g, ' ').trim();
  if (line.length <= LONGEST_MESSAGE) return line;
  return `${line.slice(0, LONGEST_MESSAGE - 1).replace(/[\ud800-\udbff]$/, '')}…`;
}

function formsOf(value: string): ReadonlySet<string> {
  const encoded = Buffer.from(value, 'utf8')
    .toString('base64')
    .replace(/(?<!=)=+$/, '');
  return new Set([value, encoded, encodeURIComponent(value)]);
}

const digestOf = (text: string): string => createHash('sha256').update(text).digest('base64');
