import { isTrouble, type PublicationStatus } from '../../core/status.ts';
import { printable } from '../../mesh/secrets.ts';
import { humanDuration } from '../terminal/human-duration.ts';
import { type Column, formatTable, type painter } from '../terminal/table.ts';

export interface StatusRow {
  readonly namespace: string;
  readonly name: string;
  /** Absent until an agent has written it. */
  readonly status: Partial<PublicationStatus> | undefined;
}

interface TableLayout {
  readonly namespaces: boolean;
  readonly wide: boolean;
  /** Epoch ms. */
  readonly now: number;
  readonly paint: ReturnType<typeof painter>;
}

/** The table of `meshcert status`. */
export function statusTable(rows: readonly StatusRow[], { namespaces, wide, now, paint }: TableLayout): string {
  const columns: Column<StatusRow>[] = [
    ...(namespaces ? [{ title: 'NAMESPACE', cell: ({ namespace }: StatusRow) => namespace }] : []),
    { title: 'NAME', cell: ({ name }) => name },
    { title: 'MESH', cell: ({ status }) => status?.mesh ?? '-' },
    { title: 'READY', cell: readyOf, paint: (_, text) => paint(colourOf(text), text) },
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
      { title: 'MAPPINGS', cell: ({ status }) => routesOf(status) },
      { title: 'LAST-ERROR', cell: ({ status }) => status?.lastError?.code ?? '-' },
    );
  }
  return formatTable(columns, rows);
}

/** Below the table: why some are not ready, and what failed last. */
export function statusMessages(rows: readonly StatusRow[], namespaces: boolean): string {
  return rows
    .map(({ namespace, name, status }) => {
      const lines = messagesOf(status);
      return lines.length === 0 ? '' : `\n${printable(namespaces ? `${namespace}/${name}` : name)}\n${lines.join('')}`;
    })
    .join('');
}

/** Each message once: several conditions may carry it, and they usually carry the last error. */
function messagesOf(status: StatusRow['status']): string[] {
  if (status === undefined)
    return ['  NoAgent: no agent has reported a status; does one run, and does it watch this namespace?\n'];
  const troubles = (status.conditions ?? []).filter((one) => isTrouble(one) && one.status !== 'Unknown');
  const said = troubles.map(({ type, status, reason, message }) => ({ head: `${type}=${status} ${reason}`, message }));
  const { lastError } = status;
  if (lastError && !said.some(({ message }) => message.includes(lastError.message)))
    said.push({ head: lastError.code, message: lastError.message });
  const seen = new Set<string>();
  return said.flatMap(({ head, message }) => {
    if (message === '' || seen.has(message)) return [];
    seen.add(message);
    return `${printable(`  ${head}: ${message}`)}\n`;
  });
}

export const isReady = ({ status }: StatusRow): boolean => conditionOf(status, 'Ready')?.status === 'True';

const readyOf = ({ status }: StatusRow): string => conditionOf(status, 'Ready')?.status ?? 'Unknown';
const colourOf = (ready: string) => (ready === 'True' ? 'green' : ready === 'False' ? 'red' : 'yellow');

/**
 * The most important word: what is degraded, otherwise what is held or not changed, otherwise why it is (not) ready.
 */
function stateOf(status: StatusRow['status']): string {
  const degraded = conditionOf(status, 'Degraded');
  if (degraded?.status === 'True') return degraded.reason;
  if (conditionOf(status, 'UpstreamVerified')?.status === 'False') return 'UpstreamNotVerified';
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

function routesOf(status: StatusRow['status']): string {
  const mappings = status?.mappings ?? [];
  return `${mappings.filter(({ state }) => state === 'ok').length}/${mappings.length}`;
}

const conditionOf = (status: StatusRow['status'], type: string) =>
  status?.conditions?.find((condition) => condition.type === type);

/** `17h`, `2d4h`, `-5m` when past. */
function until(time: string | undefined, now: number): string {
  if (time === undefined) return '-';
  const left = Date.parse(time) - now;
  return `${left < 0 ? '-' : ''}${humanDuration(Math.abs(left))}`;
}
