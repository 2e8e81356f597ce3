import { get } from 'node:http';
import { stringify } from 'yaml';
import { type Clock, systemClock } from '../async/clock.ts';
import { isTrouble, type PublicationStatus, reportedStatus } from '../core/status.ts';
import type { Kube, Selection } from '../kube/api.ts';
import { reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import { silentLog } from '../mesh/log.ts';
import { formatDuration } from '../mesh/schema.ts';
import { printable } from '../mesh/secrets.ts';
import type { KubeObject } from '../objects/objects.ts';
import { bool, choice, parsed, text, type Values } from './flags.ts';
import { CERTIFICATE_NAMES, CLUSTER_FLAGS, clusterOf, declare, type Io, namespaceOf } from './program.ts';
import { type Column, describeFailure, formatTable, humanDuration, painter, systemReason } from './terminal.ts';

const flags = {
  allNamespaces: bool('-A, --all-namespaces', 'Show all namespaces'),
  selector: text('-l, --selector <query>', 'Show those with these labels, such as team=web,env!=test').conflicts('url'),
  output: choice('-o, --output <format>', 'Output format', ['wide', 'json', 'yaml', 'name']),
  watch: bool('-w, --watch', 'Show changes until interrupted'),
  exitCode: bool('--exit-code', 'Exit with 1 unless everything shown is ready'),
  url: parsed(
    '--url <url>',
    'Ask an agent, such as http://127.0.0.1:9464, instead of the cluster; for an agent that runs from a file',
    agentUrl,
  ),
  ...CLUSTER_FLAGS,
};

export type StatusFlags = Values<typeof flags>;

export const status = declare({
  name: 'status',
  description:
    'Shows for each MeshCertificate what is published, until when, and what is wrong. Below the table it prints the ' +
    'messages of those that are not ready.',
  parameters: [CERTIFICATE_NAMES],
  flags,
  examples: [
    { does: 'Show the MeshCertificates of all namespaces, with more columns', line: 'meshcert status -A -o wide' },
    { does: 'Follow one until you press Ctrl-C', line: 'meshcert status mesh -n emissary --watch' },
    { does: 'Fail in a script unless everything is ready', line: 'meshcert status -A --exit-code' },
    { does: 'Ask an agent that runs from a file', line: 'meshcert status --url http://127.0.0.1:9464' },
  ],
  run: async ({ flags, args }, io) => runStatus(flags, args, io),
});

function agentUrl(text: string): URL {
  if (!text.startsWith('http://') || !URL.canParse(text)) {
    throw new Error('expected http://host:port, such as http://127.0.0.1:9464');
  }
  return new URL('/api/status', text);
}

/** How often an agent is asked with --url --watch. */
const POLL_MS = 2000;

export async function runStatus(flags: StatusFlags, names: readonly string[], io: Io): Promise<number> {
  const { url, selector, output: format } = flags;
  const everywhere = flags.allNamespaces || url !== undefined;
  const namespace = everywhere ? undefined : namespaceOf(flags, io);
  const wanted = (row: StatusRow) => names.length === 0 || names.includes(row.name);
  const show = (rows: readonly StatusRow[]) => print(rows, { format, everywhere, names }, io);

  if (url !== undefined) {
    const ask = async () => (await statusesOfAgent(url, io.signal)).filter(wanted);
    if (flags.watch) return watch(poll(ask, systemClock, io.signal), show, `at ${url.origin}`, io);
    return answer(await ask(), show, names, flags.exitCode, io);
  }
  const kube = clusterOf(flags, io);
  const selection = { namespace, labelSelector: selector };
  try {
    const rows = (await statusesOfCluster(kube, selection, io.signal)).filter(wanted);
    if (!flags.watch) return answer(rows, show, names, flags.exitCode, io);
    const where = namespace === undefined ? 'in all namespaces' : `in namespace ${namespace}`;
    return await watch(follow(kube, selection, wanted, io), show, where, io);
  } finally {
    kube.close();
  }
}

/** A text with line breaks is one quoted line, so that no part of it looks like a field. */
const ONE_LINE_TEXTS = {
  lineWidth: 0,
  blockQuote: false,
  doubleQuotedMinMultiLineLength: Number.MAX_SAFE_INTEGER,
} as const;

type Show = (rows: readonly StatusRow[]) => void;

function answer(rows: readonly StatusRow[], show: Show, names: readonly string[], strict: boolean, io: Io): number {
  show(rows);
  const missing = names.filter((name) => !rows.some((row) => row.name === name));
  for (const name of missing)
    io.stderr.write(`${printable(`meshcert status: there is no MeshCertificate ${name} here`)}\n`);
  return missing.length > 0 || (strict && !rows.every(isReady)) ? 1 : 0;
}

interface Shown {
  readonly format: StatusFlags['output'];
  readonly everywhere: boolean;
  readonly names: readonly string[];
}

function print(rows: readonly StatusRow[], { format, everywhere, names }: Shown, { stdout, stderr, env }: Io): void {
  if (format === 'json') stdout.write(`${JSON.stringify({ certificates: rows }, null, 2)}\n`);
  else if (format === 'yaml') stdout.write(stringify({ certificates: rows }, ONE_LINE_TEXTS));
  else if (format === 'name') {
    for (const { name } of rows) stdout.write(`${printable(`meshcertificate.meshcert.dev/${name}`)}\n`);
  } else if (rows.length > 0) {
    const paint = painter(stdout, env);
    stdout.write(statusTable(rows, { namespaces: everywhere, wide: format === 'wide', now: systemClock.now(), paint }));
    stdout.write(statusMessages(rows, everywhere));
  } else if (names.length === 0) stderr.write('No MeshCertificates found. See -A for other namespaces.\n');
}

/** On a terminal the table is redrawn in place; elsewhere each change adds a line, as with kubectl. */
async function watch(states: AsyncIterable<readonly StatusRow[]>, show: Show, where: string, io: Io): Promise<number> {
  const before = new Map<string, string>();
  for await (const rows of states) {
    const changed = rows.filter((row) => {
      const key = `${row.namespace}/${row.name}`;
      const text = JSON.stringify(row.status);
      const same = before.get(key) === text;
      before.set(key, text ?? '');
      return !same;
    });
    if (io.stdout.isTTY) io.stdout.write('\x1b[H\x1b[2J');
    if (rows.length === 0) io.stderr.write(`Waiting for MeshCertificates ${where}. Press Ctrl-C to end.\n`);
    else if (io.stdout.isTTY) {
      show(rows);
      io.stdout.write(`\nWaiting for changes ${where}. Press Ctrl-C to end.\n`);
    } else {
      if (changed.length > 0) show(changed);
      if (changed.length === rows.length) io.stderr.write(`Waiting for changes ${where}. Press Ctrl-C to end.\n`);
    }
  }
  return 0;
}

async function* poll(ask: () => Promise<StatusRow[]>, clock: Clock, signal: AbortSignal): AsyncGenerator<StatusRow[]> {
  while (!signal.aborted) {
    yield await ask();
    await clock.sleep(POLL_MS, signal).catch(() => {});
  }
}

async function* follow(
  kube: Kube,
  selection: Selection,
  wanted: (row: StatusRow) => boolean,
  { stderr, signal }: Io,
): AsyncGenerator<StatusRow[]> {
  const reflector = reflect(kube, RESOURCES.meshCertificates, selection, {
    clock: systemClock,
    random: Math.random,
    log: silentLog,
    signal,
    onError: (error, { delayMs }) => {
      const again = formatDuration(Math.ceil(delayMs / 1000) * 1000);
      stderr.write(`${printable(`meshcert status: ${describeFailure(error)}`)}\nTrying again in ${again}.\n`);
    },
  });
  for await (const _ of reflector.changes()) yield [...reflector.items().values()].map(rowOf).filter(wanted);
}

/** The statuses of MeshCertificate resources. */
export async function statusesOfCluster(kube: Kube, selection: Selection, signal: AbortSignal): Promise<StatusRow[]> {
  try {
    const { items } = await kube.list(RESOURCES.meshCertificates, selection, signal);
    return items.map(rowOf);
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) {
      const next = 'apply deploy/crd/meshcertificate.yaml, or ask an agent that runs from a file with --url';
      throw new Error(`MeshCertificate is not defined in this cluster: ${next}`);
    }
    throw error;
  }
}

export function rowOf({ metadata, status }: KubeObject): StatusRow {
  return { namespace: metadata.namespace ?? '', name: metadata.name, status: reportedStatus(status) };
}

const TIMEOUT_MS = 10_000;

/** The statuses that an agent serves at its /api/status. */
export async function statusesOfAgent(address: URL, signal: AbortSignal): Promise<StatusRow[]> {
  const body = await new Promise<string>((resolve, reject) => {
    const request = get(address, { signal, timeout: TIMEOUT_MS }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      answer.once('error', reject).once('end', () => {
        if (answer.statusCode === 200) resolve(text);
        else reject(new Error(`${address.href} answered ${answer.statusCode}; is it a meshcert agent?`));
      });
    });
    request.once('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
    request.once('error', (cause) =>
      reject(new Error(`cannot reach ${address.href}: ${systemReason(cause)}`, { cause })),
    );
  });
  const certificates = rowsIn(body);
  if (!certificates) throw new Error(`${address.href} is not a meshcert agent; check --url`);
  return certificates;
}

function rowsIn(body: string): StatusRow[] | undefined {
  try {
    const { certificates } = JSON.parse(body) as { certificates?: StatusRow[] };
    return Array.isArray(certificates) ? certificates : undefined;
  } catch {
    return undefined;
  }
}

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
