import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { get } from 'node:http';
import { createInterface } from 'node:readline';

/** The default timeout of kubelet's probes. */
const PROBE_TIMEOUT_MS = 1000;
const PROBE_EVERY_MS = 250;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The shipped bundle as its own process, observed from outside. */
export class AgentProcess implements AsyncDisposable {
  readonly lines: Record<string, unknown>[] = [];
  stderr = '';
  exit: Exit | undefined;
  /** Probes of /healthz, each over a new connection with a limit of a second. */
  readonly probes = { sent: 0, failed: 0, goodRow: 0, slowestMs: 0 };
  readonly #child: ChildProcess;
  readonly #ended: Promise<Exit>;
  #probing: NodeJS.Timeout | undefined;

  constructor(bundle: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const { PATH, HOME = '/nonexistent' } = process.env;
    this.#child = spawn(process.execPath, [bundle, ...args], { env: { PATH, HOME, ...env }, stdio: 'pipe' });
    const { stdout, stderr } = this.#child;
    if (stdout) createInterface({ input: stdout }).on('line', (line) => this.lines.push(parsed(line)));
    stderr?.on('data', (data: Buffer) => {
      this.stderr = (this.stderr + data.toString()).slice(-20_000);
    });
    this.#ended = once(this.#child, 'close').then(([code, signal]) => {
      this.exit = { code, signal } as Exit;
      return this.exit;
    });
  }

  get ended(): Promise<Exit> {
    return this.#ended;
  }

  /** Of the HTTP server, once it listens. */
  get url(): URL | undefined {
    const line = this.lines.find(({ url }) => typeof url === 'string');
    return line && new URL(String(line.url));
  }

  /** From now on probes /healthz as kubelet does, only more often. */
  startProbing(): void {
    this.#probing = setInterval(() => void this.#probe(), PROBE_EVERY_MS);
  }

  /** Its peak memory, MiB, from the kernel; undefined without /proc. */
  async peakMiB(): Promise<number | undefined> {
    const status = await readFile(`/proc/${this.#child.pid}/status`, 'utf8').catch(() => '');
    const [, kib] = /^VmHWM:\s+(\d+) kB/m.exec(status) ?? [];
    return kib === undefined ? undefined : Number(kib) / 1024;
  }

  /** Its CPU time, s, user and system; undefined without /proc. */
  async cpuSeconds(): Promise<number | undefined> {
    const stat = await readFile(`/proc/${this.#child.pid}/stat`, 'utf8').catch(() => '');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [user, system] = [fields[11], fields[12]].map(Number);
    return user === undefined || system === undefined || stat === '' ? undefined : (user + system) / 100;
  }

  stop(signal: NodeJS.Signals = 'SIGTERM'): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#probing);
    this.stop('SIGKILL');
    await this.#ended;
  }

  async #probe(): Promise<void> {
    const { url } = this;
    if (!url || this.exit) return;
    this.probes.sent += 1;
    const start = performance.now();
    const ok = await new Promise<boolean>((resolve) => {
      const request = get(new URL('/healthz', url), { agent: false }, (answer) => {
        answer.resume().once('end', () => resolve(answer.statusCode === 200));
        answer.once('error', () => resolve(false));
      });
      const late = setTimeout(() => request.destroy(new Error('late')), PROBE_TIMEOUT_MS);
      request.once('error', () => resolve(false)).once('close', () => clearTimeout(late));
    });
    if (this.exit) return;
    this.probes.slowestMs = Math.max(this.probes.slowestMs, performance.now() - start);
    this.probes.goodRow = ok ? this.probes.goodRow + 1 : 0;
    if (!ok) this.probes.failed += 1;
  }
}

function parsed(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return { text: line };
  }
}
