import pino from 'pino';
import { escapeUnprintable } from '../mesh/input/untrusted-text.ts';
import type { Log, LogLevel } from '../mesh/log.ts';
import { redactText } from '../mesh/secrets.ts';
import { LineSink } from './line-sink.ts';
import { redact } from './redact.ts';

export interface LogOptions {
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
