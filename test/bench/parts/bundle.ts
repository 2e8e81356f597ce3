import { readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { builtBundle } from '../../../scripts/built-bundle.ts';
import { RUN_CONFIG } from '../../../scripts/image/content.ts';
import { freePorts } from '../../peers/servers/loopback.ts';
import { Daemon, scratchDir, serverOf } from '../../peers/servers/process.ts';

/** The version in `User-Agent: meshcert/…`. */
export const BUNDLE_AGENT = 'meshcert/';

export interface Bundle extends AsyncDisposable {
  readonly pid: number;
  readonly url: string;
  /** From its start to its first 200 of /readyz. */
  readonly readyMs: number;
  /** `GET /api/status`. */
  statuses(): Promise<readonly Status[]>;
  metrics(): Promise<string>;
  /** Bytes in use after a garbage collection; only for a bundle that was started to report it. */
  heap(): Promise<number>;
}

interface Status {
  readonly name: string;
  readonly status: { readonly fingerprint?: string; readonly conditions: readonly { type: string; status: string }[] };
}

/** One watch for each kind, which docs/scale.md recommends for many; it needs the lists of what may be used. */
export const watchingLabels = (caAddress: string): readonly string[] => [
  '--observe',
  'labels',
  '--allow-audience=istio-ca',
  `--allow-address=${caAddress}`,
];

/** The shipped bundle as its users run it. */
export async function startBundle(
  kubeconfig: string,
  args: readonly string[],
  options: { readonly reportsHeap?: boolean; readonly node?: string } = {},
): Promise<Bundle> {
  const dir = scratchDir('bundle');
  const heapFile = join(dir, 'heap');
  const { http } = await freePorts('http');
  const url = `http://127.0.0.1:${http}`;
  const file = await builtBundle();
  const started = performance.now();
  let readyMs = 0;
  const daemon = await Daemon.start({
    name: 'meshcert',
    file: options.node ?? process.execPath,
    args: [
      ...(options.reportsHeap ? ['--expose-gc', '--import', heapReporter(heapFile)] : []),
      ...[
        file,
        'agent',
        '--kubeconfig',
        kubeconfig,
        '--listen',
        `127.0.0.1:${http}`,
        '--log-level',
        'error',
        '--files-below',
        tmpdir(),
      ],
      ...args,
    ],
    dir,
    env: imageEnv(),
    ready: async () => {
      const { ok } = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(1_000) });
      readyMs ||= ok ? performance.now() - started : 0;
      return ok;
    },
    graceMs: 10_000,
  });
  return {
    ...serverOf(daemon, dir),
    pid: daemon.pid,
    url,
    readyMs,
    async statuses() {
      const body = (await (await fetch(`${url}/api/status`)).json()) as { certificates: readonly Status[] };
      return body.certificates;
    },
    metrics: async () => (await fetch(`${url}/metrics`)).text(),
    async heap() {
      await rm(heapFile, { force: true });
      process.kill(daemon.pid, 'SIGUSR2');
      for (const deadline = Date.now() + 60_000; Date.now() < deadline; ) {
        const text = await readFile(heapFile, 'utf8').catch(() => undefined);
        if (text !== undefined) return Number(text);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error('the bundle did not report its heap');
    },
  };
}

/** Without PATH: Node.js is elsewhere here. */
export function imageEnv(): Readonly<Record<string, string>> {
  const { PATH: _, ...env } = Object.fromEntries((RUN_CONFIG.Env ?? []).map((setting) => setting.split('=', 2)));
  return env;
}

/** Imported before the unchanged bundle: at SIGUSR2 it collects garbage, and writes the remaining size to a file. */
function heapReporter(path: string): string {
  const source = `import { renameSync, writeFileSync } from 'node:fs';
process.on('SIGUSR2', () => {
  for (let round = 0; round < 3; round++) gc();
  writeFileSync(${JSON.stringify(`${path}.new`)}, String(process.memoryUsage().heapUsed));
  renameSync(${JSON.stringify(`${path}.new`)}, ${JSON.stringify(path)});
});`;
  return `data:text/javascript,${encodeURIComponent(source)}`;
}

export const isPublished = ({ status }: Status): boolean =>
  ['Ready', 'Published'].every((type) => status.conditions.find((one) => one.type === type)?.status === 'True');

/** Polls until this many are published, by default each second and less often if the answer is long. */
export async function untilPublished(
  bundle: Bundle,
  count: number,
  { deadlineMs = 1_200_000, everyMs = Math.max(1_000, count) } = {},
): Promise<void> {
  for (const deadline = Date.now() + deadlineMs; Date.now() < deadline; ) {
    const statuses = await bundle.statuses().catch(() => []);
    if (statuses.filter(isPublished).length >= count) return;
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
  throw new Error(`${count} publications did not come within ${deadlineMs} ms`);
}

/** Bytes; Linux only. */
export const rssOf = (pid: number): Promise<number> => memoryOf(pid, 'VmRSS');

/** The highest so far, bytes; Linux only. */
export const peakOf = (pid: number): Promise<number> => memoryOf(pid, 'VmHWM');

/** The part of the resident memory that is no file, which the kernel cannot give up without swapping; Linux only. */
export const anonymousOf = (pid: number): Promise<number> => memoryOf(pid, 'RssAnon');

async function memoryOf(pid: number, field: 'VmRSS' | 'VmHWM' | 'RssAnon'): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(text)?.[1] ?? Number.NaN) * 1024;
}

/** User and system milliseconds so far; Linux only, in steps of 10 ms. */
export async function cpuOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
