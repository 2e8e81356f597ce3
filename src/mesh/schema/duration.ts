import { z } from 'zod';
import { LONGEST } from './bounds.ts';

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

const UNITS = Object.keys(UNIT_MS).join('|');

/**
 * Go's syntax, which operators know, without a sign: `8h`, `1h30m`, `1.5s`, `500ms`, `0`. Its source is part of the
 * custom resource definition, so it is made from a string: the build escapes `µ` in a literal, and Go refuses `\u00b5`.
 */
export const DURATION_PATTERN = new RegExp(`^(0|(\\d+(\\.\\d+)?(${UNITS}))+)$`);

const PART = new RegExp(`(?<![\\d.])(\\d+(?:\\.\\d+)?)(${UNITS})`, 'g');
const EXPECTED = 'expected a duration such as "8h", "1h30m" or "500ms"';

/**
 * Milliseconds, rounded to whole ones. Throws a RangeError that says what was expected.
 *
 * @example parseDuration('1h30m') // 5400000
 */
export function parseDuration(text: string): number {
  if (!DURATION_PATTERN.test(text)) throw new RangeError(`${JSON.stringify(text)}: ${EXPECTED}`);
  const ms = sum(text);
  if (!Number.isSafeInteger(ms)) throw new RangeError(`${JSON.stringify(text)} is too long a duration`);
  return ms;
}

/** The shortest spelling that parses back to the same value: 90 minutes read `1h30m`, zero reads `0s`. */
export function formatDuration(ms: number): string {
  let left = Math.max(0, Math.round(ms));
  if (left === 0) return '0s';
  let text = '';
  for (const unit of ['h', 'm', 's', 'ms']) {
    const size = UNIT_MS[unit] ?? 1;
    const count = Math.floor(left / size);
    if (count > 0) text += `${count}${unit}`;
    left -= count * size;
  }
  return text;
}

/**
 * A duration in configuration: text in, milliseconds out. The bounds are durations too and appear in the message.
 *
 * @example z.strictObject({ ttl: durationSchema({ min: '1m' }).prefault('24h') })
 */
export function durationSchema(bounds: { min?: string; max?: string } = {}) {
  const min = parseDuration(bounds.min ?? '0');
  const max = bounds.max === undefined ? Number.MAX_SAFE_INTEGER : parseDuration(bounds.max);
  return z
    .string({ error: EXPECTED })
    .max(LONGEST.duration, { error: EXPECTED, abort: true })
    .regex(DURATION_PATTERN, EXPECTED)
    .transform((text, context) => {
      const ms = sum(text);
      if (ms < min) context.addIssue(`must be at least ${bounds.min}`);
      if (ms > max) context.addIssue(bounds.max === undefined ? 'is too long' : `must be at most ${bounds.max}`);
      return ms;
    });
}

function sum(text: string): number {
  let total = 0;
  for (const [, amount, unit] of text.matchAll(PART)) total += Number(amount) * (UNIT_MS[unit ?? ''] ?? 0);
  return Math.round(total);
}
