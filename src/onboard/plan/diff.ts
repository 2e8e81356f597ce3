import { Document, isScalar, visit } from 'yaml';
import type { KubeObject } from '../../core/object.ts';

/** `+`, `-` or a blank before each line, as in diff. */
export type DiffLine = string;

/**
 * Compares two objects as YAML, with this many lines around each change. Unless `whole`, only the fields in `after` are
 * compared: the others belong to somebody else or to the server.
 */
export function diffObjects(
  before: KubeObject | undefined,
  after: KubeObject | undefined,
  context = 2,
  whole = false,
): DiffLine[] {
  const old = before && after && !whole ? (within(before, after) as KubeObject) : before;
  return hunks(diffLines(linesOf(old), linesOf(after)), context);
}

/** The fields of an object that a wanted one has: the others belong to somebody else or to the server. */
export function within(object: unknown, wanted: unknown): unknown {
  if (!isMap(object) || !isMap(wanted)) return object;
  const unchanged = Object.keys(wanted).filter((key) => key in object);
  return Object.fromEntries(unchanged.map((key) => [key, within(object[key], wanted[key])]));
}

/** Without the fields that the server maintains. */
export function bare(object: KubeObject): KubeObject {
  const { name, namespace, labels, annotations } = object.metadata;
  const { status: _, ...rest } = object;
  const metadata = Object.fromEntries(
    Object.entries({ name, namespace, labels, annotations }).filter(([, value]) => !isEmpty(value)),
  ) as unknown as KubeObject['metadata'];
  const { apiVersion, kind } = object;
  return {
    apiVersion,
    kind,
    metadata,
    ...Object.fromEntries(Object.entries(rest).filter(([key]) => key !== 'metadata')),
  };
}

const linesOf = (object: KubeObject | undefined): string[] =>
  object ? yamlOf(bare(object), { sorted: true }).trimEnd().split('\n') : [];

/** Keeps the longest common part of both; objects here have tens of lines, so the quadratic cost is small. */
function diffLines(before: readonly string[], after: readonly string[]): DiffLine[] {
  const common: number[][] = Array.from({ length: before.length + 1 }, () => Array(after.length + 1).fill(0));
  const at = (i: number, j: number) => common[i]?.[j] ?? 0;
  for (let i = before.length - 1; i >= 0; i--) {
    const row = common[i];
    for (let j = after.length - 1; row && j >= 0; j--) {
      row[j] = before[i] === after[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: DiffLine[] = [];
  for (let i = 0, j = 0; i < before.length || j < after.length; ) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      lines.push(`  ${before[i]}`);
      i++;
      j++;
    } else if (j >= after.length || (i < before.length && at(i + 1, j) >= at(i, j + 1))) {
      lines.push(`- ${before[i]}`);
      i++;
    } else {
      lines.push(`+ ${after[j]}`);
      j++;
    }
  }
  return lines;
}

function hunks(lines: readonly DiffLine[], context: number): DiffLine[] {
  const isChange = (line: DiffLine | undefined) => line !== undefined && !line.startsWith('  ');
  const near = lines.map((_, i) => lines.slice(Math.max(0, i - context), i + context + 1).some(isChange));
  return lines.flatMap((line, i) => (near[i] ? [line] : near[i - 1] ? ['  …'] : []));
}

/** The server treats absent and empty labels as equal. */
const isEmpty = (value: unknown): boolean => value === undefined || (isMap(value) && Object.keys(value).length === 0);

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** YAML as people write it: lists of plain words in one line, and no aliases. */
export function yamlOf(object: object, options: { readonly sorted: boolean }): string {
  const document = new Document(object, { aliasDuplicateObjects: false, sortMapEntries: options.sorted });
  visit(document, {
    Seq(_, list) {
      list.flow = list.items.every((item) => isScalar(item) && !String(item.value).includes('\n'));
    },
  });
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}
