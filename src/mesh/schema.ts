import { isIP, isIPv6 } from 'node:net';
import { z } from 'zod';

const HOST = String.raw`(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][-A-Za-z0-9_.]{0,252})`;
/** 1 to 65535 as a pattern, so that the API server refuses other ports too. */
const PORT = '([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])';

/** The API server estimates the cost of a rule over these by their length: a host of 253, a port, a scheme. */
const LONGEST_ADDRESS = 300;

const HOST_PORT = new RegExp(`^${HOST}:${PORT}$`);
const HTTP_OR_SOCKET = new RegExp(String.raw`^(https?://${HOST}(:${PORT})?/?|unix:///\S+)$`);

/**
 * `host:port` in configuration, with an IPv6 address in brackets and a port of 1 to 65535.
 *
 * @example z.strictObject({ address: hostPort('web.shop:443') })
 */
export function hostPort(example: string) {
  return z
    .string()
    .max(LONGEST_ADDRESS)
    .regex(HOST_PORT, { error: `expected host:port with a port of 1 to 65535, such as "${example}"`, abort: true })
    .refine((text) => !text.startsWith('[') || isIPv6(splitAddress(text).host), 'has no IPv6 address in its brackets');
}

/** `http://host:port`, `https://host:port` or `unix:///path` in configuration. */
export function httpOrSocket() {
  return z
    .string()
    .max(LONGEST_ADDRESS)
    .regex(HTTP_OR_SOCKET, {
      error: 'expected http://host:port or https://host:port with a port of 1 to 65535, or unix:///path',
      abort: true,
    })
    .refine((text) => URL.canParse(text), 'is not a URL: the host is neither a name nor an IP address');
}

/** `[::1]:443` → `::1` and 443. For addresses that `hostPort` has accepted; for others the port may be NaN. */
export function splitAddress(address: string): { host: string; port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}

/** Whether `host:port` never leaves this machine. */
export function isLoopback(address: string): boolean {
  const host = splitAddress(address).host.toLowerCase();
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/**
 * The longest texts of a MeshCertificate, in characters. They follow from Kubernetes and the file system, or are far
 * above what is used; without them one object could keep the agent busy for all others.
 */
export const LONGEST = {
  /** An object of Kubernetes, or a DNS name. */
  name: 253,
  /** A label of DNS, such as a namespace. */
  label: 63,
  /** Linux refuses longer paths. */
  path: 4096,
  /** SPIFFE limits an ID to 2,048 bytes. */
  id: 2048,
  /** An audience of a token is a name or a URL. */
  audience: 1024,
  /** A Go duration, each unit once. */
  duration: 64,
  /** More than a hundred roots in PEM. */
  pem: 262_144,
  /** A token of a mesh is a UUID, or a JWT. */
  token: 16_384,
} as const;

/** The most entries of a list or a map that a user writes. */
export const MOST = {
  namespaces: 1024,
  labels: 256,
  /** Ports, ids and the like, of which one object has a few. */
  few: 64,
  targets: 1024,
} as const;

/** A map with at most this many entries, for the agent and for the API server. */
export const atMost = <K extends z.core.$ZodRecordKey, V extends z.core.SomeType>(
  most: number,
  map: z.ZodRecord<K, V>,
): z.ZodRecord<K, V> =>
  map
    .refine((given) => Object.keys(given).length <= most, { error: `must have at most ${most} entries` })
    .meta({ maxProperties: most });

/**
 * The equivalent of a schema's refinement in CEL, which the API server checks custom resources with; added to the
 * schema by `.meta()`. The rule must hold for defaults too, which are checked before nested ones are filled in.
 *
 * @example z.strictObject({ … }).refine(one, { error: ONE }).meta(cel('has(self.a) != has(self.b)', ONE))
 */
export const cel = (rule: string, message: string) => ({ 'x-kubernetes-validations': [{ rule, message }] });

/** Several of them for one schema. */
export const rules = (...all: readonly ReturnType<typeof cel>[]): ReturnType<typeof cel> => ({
  'x-kubernetes-validations': all.flatMap((one) => one['x-kubernetes-validations']),
});

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
const DURATION_PATTERN = new RegExp(`^(0|(\\d+(\\.\\d+)?(${UNITS}))+)$`);

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
