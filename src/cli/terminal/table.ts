import { styleText } from 'node:util';
import { printable } from '../../mesh/secrets.ts';
import type { Output } from '../declare/command.ts';

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
