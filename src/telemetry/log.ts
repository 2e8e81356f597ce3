import { writeSync } from 'node:fs';
import pino from 'pino';
import { escapeUnprintable } from '../mesh/input.ts';
import type { Log, LogLevel } from '../mesh/log.ts';
import { redactText } from '../mesh/secrets.ts';

interface LogOptions {
  readonly level?: LogLevel;
  /** The receiver of lines; default: standard output. */
  readonly destination?: { write(line: string): void };
}

/**
 * One JSON object for each line: `time` (ISO 8601), `level`, `msg`, and the given fields. Everything goes through
 * `redact`. Written synchronously, so that the line before a crash is not lost; lines that cannot be written are lost.
 */
export function createLog(options: LogOptions = {}): Log {
  const { level = 'info', destination = new LineSink(1) } = options;
  const formatters = { level: (label: string) => ({ level: label }) };
  const serializers = { err: (error: unknown) => error };
  return redacting(
    pino(
      { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters, serializers },
      escaped(destination),
    ),
  );
}

/** JSON escapes only the first 32 control characters, and a terminal that shows the log obeys others too. */
const escaped = (destination: { write(line: string): void }) => ({
  write: (line: string) => destination.write(escapeUnprintable(line)),
});

/** A wrapper around pino, since its own hooks skip the fields of a child. */
function redacting(logger: pino.Logger): Log {
  const write = (level: 'debug' | 'info' | 'warn' | 'error') => (fields: object, message: string) => {
    if (logger.isLevelEnabled(level)) logger[level](redact(fields), redactText(message));
  };
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (fields) => redacting(logger.child(redact(fields) as pino.Bindings)),
  };
}

/**
 * A pipe with a busy reader is waited for this long in total, in steps; a reader that hangs must not stop the agent.
 */
const PATIENCE = { steps: 20, stepMs: 5 };

/**
 * Writes each line to a file descriptor before it returns, and never throws: on a full disk, or when the reader is
 * gone, lines are lost and the agent continues. Each line is a new attempt.
 */
export class LineSink {
  readonly #fd: number;
  /** The rest of a partly written line: without it, two lines would run into one. */
  #rest: Buffer = Buffer.alloc(0);

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(line: string): void {
    const added = Buffer.from(line);
    const data = Buffer.concat([this.#rest, added]);
    const left = this.#put(data);
    const begun = data.length - left.length > this.#rest.length;
    this.#rest = begun ? left : left.subarray(0, left.length - added.length);
  }

  /** Returns what could not be written. */
  #put(data: Buffer): Buffer {
    let left = data;
    for (let steps = 0; left.length > 0; ) {
      try {
        left = left.subarray(writeSync(this.#fd, left));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || steps === PATIENCE.steps) return left;
        steps += 1;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PATIENCE.stepMs);
      }
    }
    return left;
  }
}

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
function redact(value: unknown, seen: readonly object[] = []): unknown {
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
