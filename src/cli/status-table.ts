import type { PublicationStatus } from '../core/status.ts';
import { type Column, formatTable, type painter } from './table.ts';

export interface StatusRow {
  readonly namespace: string;
  readonly name: string;
  /** Absent while no agent has seen it. */
  readonly status: Partial<PublicationStatus> | undefined;
}

interface Shape {
  readonly namespaces: boolean;
  readonly wide: boolean;
  /** Epoch ms. */
  readonly now: number;
  readonly paint: ReturnType<typeof painter>;
}

/** The table of `meshcert status`. */
export function statusTable(rows: readonly StatusRow[], { namespaces, wide, now, paint }: Shape): string {
  const columns: Column<StatusRow>[] = [
    ...(namespaces ? [{ title: 'NAMESPACE', cell: ({ namespace }: StatusRow) => namespace }] : []),
    { title: 'NAME', cell: ({ name }) => name },
    { title: 'MESH', cell: ({ status }) => status?.mesh ?? '-' },
    { title: 'READY', cell: (row) => ready(row, paint) },
    { title: 'STATE', cell: ({ status }) => stateOf(status) },
    { title: 'EXPIRES', cell: ({ status }) => until(status?.notAfter, now) },
    { title: 'RENEWAL', cell: ({ status }) => until(status?.renewalTime, now) },
    { title: 'ROTATIONS', cell: ({ status }) => String(status?.rotations ?? 0) },
    { title: 'IDENTITY', cell: ({ status }) => status?.id ?? '-' },
  ];
  if (wide) {
    columns.push(
      { title: 'LEAF', cell: ({ status }) => status?.fingerprint?.slice(0, 16) ?? '-' },
      { title: 'ROOTS', cell: ({ status }) => rootsOf(status) },
      { title: 'MAPPINGS', cell: ({ status }) => mappingsOf(status) },
      { title: 'LAST-ERROR', cell: ({ status }) => status?.lastError?.code ?? '-' },
    );
  }
  return formatTable(columns, rows);
}

export const isReady = ({ status }: StatusRow): boolean => conditionOf(status, 'Ready')?.status === 'True';

function ready(row: StatusRow, paint: Shape['paint']): string {
  const value = conditionOf(row.status, 'Ready')?.status ?? 'Unknown';
  return paint(value === 'True' ? 'green' : value === 'False' ? 'red' : 'yellow', value);
}

/** The one word that says most: what is degraded, else what is held or left alone, else why it is (not) ready. */
function stateOf(status: StatusRow['status']): string {
  const degraded = conditionOf(status, 'Degraded');
  if (degraded?.status === 'True') return degraded.reason;
  if (status?.held) return 'LeafHeld';
  const referenced = conditionOf(status, 'Referenced');
  const ready = conditionOf(status, 'Ready');
  if (ready?.status === 'True' && referenced?.status === 'False') return referenced.reason;
  return ready?.reason ?? 'NoAgent';
}

function rootsOf(status: StatusRow['status']): string {
  const roots = status?.roots ?? [];
  const retained = roots.filter(({ state }) => state === 'retained').length;
  return retained === 0 ? String(roots.length) : `${roots.length - retained}+${retained} retained`;
}

function mappingsOf(status: StatusRow['status']): string {
  const mappings = status?.mappings ?? [];
  return `${mappings.filter(({ state }) => state === 'ok').length}/${mappings.length}`;
}

const conditionOf = (status: StatusRow['status'], type: string) =>
  status?.conditions?.find((condition) => condition.type === type);

const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
] as const;

/** `17h`, `2d4h`, `4m30s`: two units where the first is small, as kubectl does for ages; `-5m` when past. */
function until(time: string | undefined, now: number): string {
  if (time === undefined) return '-';
  const left = Date.parse(time) - now;
  const size = Math.abs(left);
  const index = UNITS.findIndex(([, length]) => size >= length);
  const unit = UNITS[index];
  if (!unit) return '0s';
  const count = Math.floor(size / unit[1]);
  const next = UNITS[index + 1];
  const rest = next && count < 10 ? Math.floor((size % unit[1]) / next[1]) : 0;
  return `${left < 0 ? '-' : ''}${count}${unit[0]}${rest > 0 && next ? `${rest}${next[0]}` : ''}`;
}
