import { redactText } from '../mesh/secrets.ts';

const REDACTED = '[redacted]';
/** Deeper nesting is a mistake of the caller, or a cycle through getters. */
const DEEPEST = 8;
const LONGEST_LIST = 100;

const SECRET_FIELD =
  /^(authorization|password|passphrase|token|jwt|bearer|secret_?id|tls\.key|.*(_|-)?(key_?pem|private_?key|token))$/i;

/**
 * A copy for the log, without secrets at any depth: fields with a secret's name, and key or token text inside any other
 * string, are redacted. Bytes become their number, errors their fields, cycles and great depth a mark.
 */
export function redact(value: unknown, seen: readonly object[] = []): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null) return value;
  if (seen.includes(value)) return '[cycle]';
  if (seen.length >= DEEPEST) return '[deeper]';
  const path = [...seen, value];
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Error) return redactError(value, path);
  if ('toJSON' in value && typeof value.toJSON === 'function') return redact(value.toJSON(), path);
  if (Array.isArray(value)) return value.slice(0, LONGEST_LIST).map((item) => redact(item, path));
  if (value instanceof Map) return redact(Object.fromEntries(value), path);
  if (value instanceof Set) return redact([...value], path);
  return fields(value, path);
}

function fields(value: object, path: readonly object[]): Record<string, unknown> {
  const copy: Record<string, unknown> = {};
  for (const [field, inner] of Object.entries(value)) {
    const hide = SECRET_FIELD.test(field) && (typeof inner === 'string' || ArrayBuffer.isView(inner));
    copy[field] = hide ? REDACTED : redact(inner, path);
  }
  return copy;
}

function redactError(error: Error, path: readonly object[]): Record<string, unknown> {
  const copy: Record<string, unknown> = {
    name: error.name,
    message: redactText(error.message),
    ...fields(error, path),
  };
  if (error.stack !== undefined) copy.stack = redactText(error.stack);
  if (error.cause !== undefined) copy.cause = redact(error.cause, path);
  if (error instanceof AggregateError) copy.errors = redact(error.errors, path);
  return copy;
}
