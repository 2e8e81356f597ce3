import { stringify } from 'yaml';
import { type Clock, systemClock } from '../../async/clock.ts';
import type { Kube, Selection } from '../../kube/api.ts';
import { reflect } from '../../kube/reflector.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { silentLog } from '../../mesh/log.ts';
import { formatDuration } from '../../mesh/schema/duration.ts';
import { printable } from '../../mesh/secrets.ts';
import type { StatusFlags } from '../commands/status.ts';
import { clusterOf, namespaceOf } from '../declare/cluster-flags.ts';
import type { Io } from '../declare/command.ts';
import { describeFailure } from '../terminal/failure.ts';
import { painter } from '../terminal/table.ts';
import { rowOf, statusesOfAgent, statusesOfCluster } from './status-source.ts';
import { isReady, type StatusRow, statusMessages, statusTable } from './status-table.ts';

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
