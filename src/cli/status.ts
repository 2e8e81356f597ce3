import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import { nearest } from '../config/nearest.ts';
import type { Kube } from '../kube/api.ts';
import { reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import { type Clock, systemClock } from '../mesh/clock.ts';
import { silentLog } from '../mesh/log.ts';
import { CLUSTER_OPTIONS, CLUSTER_USAGE, clusterOf, namespaceOf } from './cluster-flags.ts';
import { type Command, type Io, UsageError } from './command.ts';
import { rowOf, statusesOfAgent, statusesOfCluster } from './status-source.ts';
import { isReady, type StatusRow, statusTable } from './status-table.ts';
import { painter } from './table.ts';

const USAGE = `usage: meshcert status [NAME…] [flags]

Shows for each MeshCertificate what is published, until when, and what is wrong.

  -A, --all-namespaces   of all namespaces
  -o, --output FORMAT    wide, json or yaml
  -w, --watch            go on, showing what changes
  --exit-code            exit with 1 unless everything shown is ready
  --url URL              ask an agent, such as http://127.0.0.1:9464, instead
                         of the cluster: for one that runs from a file
${CLUSTER_USAGE}
`;

/** How often an agent is asked with --url --watch. */
const POLL_MS = 2000;

const OPTIONS = {
  ...CLUSTER_OPTIONS,
  'all-namespaces': { type: 'boolean', short: 'A', default: false },
  output: { type: 'string', short: 'o' },
  watch: { type: 'boolean', short: 'w', default: false },
  'exit-code': { type: 'boolean', default: false },
  url: { type: 'string' },
} as const;

const FORMATS = ['wide', 'json', 'yaml'] as const;

export const status: Command = {
  name: 'status',
  summary: 'Show what is published, until when, and what is wrong',
  usage: USAGE,
  async run(argv, io) {
    const { values, positionals: names } = parseArgs({ args: [...argv], options: OPTIONS, allowPositionals: true });
    const format = FORMATS.find((known) => known === values.output);
    if (values.output !== undefined && format === undefined) {
      const meant = nearest(values.output, FORMATS);
      throw new UsageError(`-o must be ${FORMATS.join(', ')}${meant ? `; did you mean ${meant}?` : ''}`);
    }
    const everywhere = values['all-namespaces'] || values.url !== undefined;
    const namespace = everywhere ? undefined : namespaceOf(values, io);
    const wanted = (row: StatusRow) => names.length === 0 || names.includes(row.name);
    const show = (rows: readonly StatusRow[]) => print(rows, { format, everywhere, names }, io);

    const { url } = values;
    if (url !== undefined) {
      const ask = async () => (await statusesOfAgent(url, io.signal)).filter(wanted);
      if (values.watch) return watch(poll(ask, systemClock, io.signal), show, io);
      return answer(await ask(), show, names, values['exit-code'], io);
    }
    const kube = clusterOf(values, io);
    try {
      if (values.watch) return await watch(follow(kube, namespace, wanted, io.signal), show, io);
      const rows = (await statusesOfCluster(kube, namespace, io.signal)).filter(wanted);
      return answer(rows, show, names, values['exit-code'], io);
    } finally {
      kube.close();
    }
  },
};

type Show = (rows: readonly StatusRow[]) => void;

function answer(rows: readonly StatusRow[], show: Show, names: readonly string[], strict: boolean, io: Io): number {
  show(rows);
  const missing = names.filter((name) => !rows.some((row) => row.name === name));
  for (const name of missing) io.stderr.write(`meshcert status: no MeshCertificate is called ${name} here\n`);
  return missing.length > 0 || (strict && !rows.every(isReady)) ? 1 : 0;
}

interface Shown {
  readonly format: (typeof FORMATS)[number] | undefined;
  readonly everywhere: boolean;
  readonly names: readonly string[];
}

function print(rows: readonly StatusRow[], { format, everywhere, names }: Shown, { stdout, stderr, env }: Io): void {
  if (format === 'json') stdout.write(`${JSON.stringify({ certificates: rows }, null, 2)}\n`);
  else if (format === 'yaml') stdout.write(stringify({ certificates: rows }, { lineWidth: 0 }));
  else if (rows.length > 0) {
    const paint = painter(stdout, env);
    stdout.write(statusTable(rows, { namespaces: everywhere, wide: format === 'wide', now: systemClock.now(), paint }));
  } else if (names.length === 0) stderr.write('No MeshCertificates found. See -A for other namespaces.\n');
}

/** On a terminal the table is drawn anew in its place; elsewhere each change is a line more, as with kubectl. */
async function watch(states: AsyncIterable<readonly StatusRow[]>, show: Show, io: Io): Promise<number> {
  const before = new Map<string, string>();
  for await (const rows of states) {
    const changed = rows.filter((row) => {
      const key = `${row.namespace}/${row.name}`;
      const text = JSON.stringify(row.status);
      const same = before.get(key) === text;
      before.set(key, text ?? '');
      return !same;
    });
    if (io.stdout.isTTY) {
      io.stdout.write('\x1b[H\x1b[2J');
      show(rows);
    } else if (changed.length > 0) show(changed);
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
  namespace: string | undefined,
  wanted: (row: StatusRow) => boolean,
  signal: AbortSignal,
): AsyncGenerator<StatusRow[]> {
  const means = { clock: systemClock, random: Math.random, log: silentLog, signal };
  const reflector = reflect(kube, RESOURCES.meshCertificates, { namespace }, means);
  for await (const _ of reflector.changes()) yield [...reflector.items().values()].map(rowOf).filter(wanted);
}
