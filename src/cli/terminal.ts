import { open } from 'node:fs/promises';
import { createInterface } from 'node:readline/promises';
import { getSystemErrorMap, styleText } from 'node:util';
import { escapeUnprintable } from '../mesh/input.ts';
import { printable } from '../mesh/secrets.ts';
import type { Announce } from '../onboard/plan.ts';
import { UsageError } from './flags.ts';
import type { Io, Output } from './program.ts';

/** Asks on the terminal; anything but yes means no. Without a terminal there is no one to ask, so --yes is required. */
export async function confirmed(question: string, { stdin, stdout, signal }: Io): Promise<boolean> {
  if (!stdin?.isTTY) throw new UsageError('there is no terminal to ask for confirmation; add --yes to change anything');
  const asking = createInterface({ input: stdin, output: stdout as NodeJS.WritableStream });
  // End of input, or Ctrl-C, which a terminal in raw mode does not turn into a signal.
  const closed = new Promise<string>((resolve) => asking.once('close', () => resolve('')));
  try {
    const answer = await Promise.race([asking.question(`${question} [y/N] `, { signal }), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    asking.close();
  }
}

/**
 * Prints lines as they come; what is waited for is one line on a terminal, and otherwise a new line for each change.
 */
export function sayTo(output: Output): Announce {
  let waiting = '';
  const said = new Set<string>();
  const clear = () => {
    if (waiting && output.isTTY) output.write('\r\x1b[K');
    waiting = '';
  };
  return {
    line(text) {
      clear();
      output.write(`${printable(text)}\n`);
    },
    waiting(what) {
      const text = printable(what);
      if (output.isTTY) {
        clear();
        output.write(`... ${text}`.slice(0, (output.columns ?? 80) - 1));
      } else if (!said.has(text)) output.write(`... ${text}\n`);
      said.add(text);
      waiting = text;
    },
  };
}

/** Codes of Node.js errors; our error classes have names of their own. */
const FOREIGN_CODE = /^ERR_/;
const BUILT_IN: readonly string[] = ['Error', 'TypeError', 'RangeError', 'SyntaxError', 'ReferenceError', 'AbortError'];

/**
 * The message for a user about an error that ended a command: with its code if it is ours, and without text that only a
 * developer of Node.js would understand.
 */
export function describeFailure(error: unknown): string {
  if (!(error instanceof Error)) return unexpected(String(error));
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall !== undefined) return systemFailure(error);
  const isBuiltIn = BUILT_IN.includes(error.name);
  if (!isBuiltIn) return typeof code === 'string' ? `${code}: ${error.message}` : error.message;
  if (error.name === 'Error' && !(typeof code === 'string' && FOREIGN_CODE.test(code))) return error.message;
  return unexpected(error.message);
}

/** `no such file or directory`, for an error of the operating system. */
export function systemReason(error: unknown): string {
  const { errno, code, message } = error as NodeJS.ErrnoException;
  // Node.js throws this for a path with a NUL in it.
  if (error instanceof TypeError) return 'this is not a path';
  const [, reason] = (errno === undefined ? undefined : getSystemErrorMap().get(errno)) ?? [];
  return reason ?? code ?? message;
}

function systemFailure(error: NodeJS.ErrnoException & { address?: string; port?: number; hostname?: string }): string {
  const { syscall = '', path, address, port, hostname } = error;
  const place = path ?? hostname ?? (address === undefined ? '' : `${address}${port === undefined ? '' : `:${port}`}`);
  return `${syscall}${place && ` ${place}`}: ${systemReason(error)}`;
}

const unexpected = (message: string): string =>
  `unexpected error: ${message}. This is a defect of meshcert; please report it with the command that you ran`;

/** How colours, the cursor and the beginning of a line are set. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: each begins with one
const OWN = /(\x1b\[[0-9;?]*[A-Za-z]|\r)/;

/**
 * The output without control characters but line breaks, whatever wrote them: each is escaped as in JSON and YAML, which
 * leaves the meaning of those as it is. Printers make text of others printable before; this is for what they forget. A
 * terminal also gets the sequences by which we colour and redraw.
 */
export function guarded(output: Output): Output {
  const clean = (text: string) =>
    output.isTTY
      ? text
          .split(OWN)
          .map((part, at) => (at % 2 === 1 ? part : escapeUnprintable(part)))
          .join('')
      : escapeUnprintable(text);
  // A stream keeps its other members, which the dialog needs.
  return Object.create(output, { write: { value: (text: string) => output.write(clean(text)) } }) as Output;
}

const UNITS = [
  ['y', 365 * 86_400_000],
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
] as const;

/** `17h`, `2d4h`, `4m30s`, `9y364d`: two units if the first is below ten, like the ages in kubectl. */
export function humanDuration(ms: number): string {
  const index = UNITS.findIndex(([, length]) => ms >= length);
  const unit = UNITS[index];
  if (!unit) return '0s';
  const count = Math.floor(ms / unit[1]);
  const next = UNITS[index + 1];
  const rest = next && count < 10 ? Math.floor((ms % unit[1]) / next[1]) : 0;
  return `${count}${unit[0]}${rest > 0 && next ? `${rest}${next[0]}` : ''}`;
}

/** Larger files are neither certificates nor manifests; and a device never ends. */
const LARGEST = 16 * 1024 * 1024;

/** The text of a file, or of standard input for `-`. Throws UsageError when it cannot be read or is larger than 16 MiB. */
export async function readInput(path: string, io: Io): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of path === '-' ? standardInput(io) : contents(path)) {
      parts.push(Buffer.from(part));
      size += parts.at(-1)?.length ?? 0;
      if (size > LARGEST) throw new UsageError(`${shown(path)} is larger than ${LARGEST / 1024 / 1024} MiB`);
    }
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(`cannot read ${shown(path)}: ${systemReason(cause)}`);
  }
  return Buffer.concat(parts).toString();
}

const shown = (path: string): string => (path === '-' ? 'standard input' : path);

function standardInput({ stdin }: Io): AsyncIterable<Buffer | string> {
  if (!stdin) throw new UsageError('there is no standard input to read');
  return stdin;
}

async function* contents(path: string): AsyncGenerator<Buffer> {
  await using file = await open(path);
  yield* file.createReadStream({ autoClose: false });
}

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
  /** Colours the text of the cell. */
  readonly paint?: (row: Row, text: string) => string;
}

/** Columns in the format of kubectl: three spaces apart, titles in capitals, no spaces after the last. */
export function formatTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cellOf = (row: Row) => (column: Column<Row>) => {
    const text = printable(column.cell(row));
    return column.paint?.(row, text) ?? text;
  };
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(cellOf(row)))];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => printed(line[index] ?? '').length)));
  return cells
    .map((line) =>
      line
        .map((cell, index) => pad(cell, widths[index] ?? 0))
        .join('   ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

type Style = Parameters<typeof styleText>[0];

/** A painter for one output: colours only on a terminal, and none if NO_COLOR is set. */
export function painter(output: Output, env: Readonly<Record<string, string | undefined>>) {
  const on = output.isTTY === true && (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb';
  return (style: Style, text: string): string => (on ? styleText(style, text, { validateStream: false }) : text);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
const printed = (text: string): string => text.replace(/\x1b\[[0-9;]*m/g, '');
const pad = (text: string, width: number): string => text + ' '.repeat(Math.max(0, width - printed(text).length));
