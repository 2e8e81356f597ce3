import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** What every real server here guarantees, whatever it serves. Leaving a scope by `await using` stops it. */
export interface Server extends AsyncDisposable {
  /** Its scratch directory, removed by `stop`. */
  readonly dir: string;
  /** The end of what it has written to stdout and stderr. */
  log(): string;
  /** SIGTERM, and SIGKILL when that does not help in time; resolves when all its processes are gone. Safe to repeat. */
  stop(): Promise<void>;
  /** Sends the signal; resolves when the process is gone, at once for SIGSTOP, SIGCONT, SIGHUP and SIGUSR. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** The same server on the same ports and data, ready again. */
  restart(): Promise<void>;
}

export interface Program {
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
  readonly dir: string;
  /** The whole environment except PATH and HOME: an inherited proxy setting would capture loopback requests. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called every 25 ms until it returns true. An exception means not yet. */
  ready(daemon: Daemon): Promise<boolean>;
  /** How long the start may take; the default fits a 2-core machine that is busy building. */
  readonly deadlineMs?: number;
  /** How long SIGTERM may take before SIGKILL follows. */
  readonly graceMs?: number;
}

const keptLog = 64 * 1024;
const running = new Set<ChildProcess>();
const scratch = new Set<string>();

process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const dir of scratch) rmSync(dir, { recursive: true, force: true });
});

/** A new empty directory, removed by `discard` or when this process ends. */
export function scratchDir(name: string): string {
  const dir = mkdtempSync(join(tmpdir(), `meshcert-${name}-`));
  scratch.add(dir);
  return dir;
}

export function discard(dir: string): void {
  scratch.delete(dir);
  // A killed server's last files may still be in the process of being written.
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
}

/** One process of ours that can be stopped and started again with the same or another program. */
export class Daemon {
  #child: ChildProcess | undefined;
  #log = '';
  #program: Program;

  private constructor(program: Program) {
    this.#program = program;
  }

  /** Resolves when the program is ready; a program that dies or is late is ended and reported with its log. */
  static async start(program: Program): Promise<Daemon> {
    const daemon = new Daemon(program);
    await daemon.#launch();
    return daemon;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined || !this.running) throw new Error(`${this.#program.name} is not running`);
    return pid;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  log(): string {
    return this.#log;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (!child || !this.running) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    if (!/^SIG(STOP|CONT|HUP|USR\d)$/.test(signal)) await gone;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (!child || !this.running) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    child.kill('SIGCONT');
    const timer = setTimeout(() => child.kill('SIGKILL'), this.#program.graceMs ?? 2_000);
    await gone;
    clearTimeout(timer);
  }

  async restart(changes: Partial<Program> = {}): Promise<void> {
    await this.stop();
    this.#program = { ...this.#program, ...changes };
    await this.#launch();
  }

  async #launch(): Promise<void> {
    const { name, file, args, dir, env, ready, deadlineMs = 60_000 } = this.#program;
    const [command, ...rest] = [...lifeline(), file, ...args];
    const child = spawn(command ?? file, rest, {
      cwd: dir,
      env: { PATH: process.env.PATH ?? '', HOME: dir, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    this.#log = '';
    running.add(child);
    child.once('exit', () => {
      running.delete(child);
      // A grandchild that survives would keep these pipes, and our event loop, open.
      setTimeout(() => [child.stdout, child.stderr].map((stream) => stream?.destroy()), 100);
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#log = (this.#log + text).slice(-keptLog);
      });
    }
    const failed = new Promise<never>((_, reject) => {
      child.once('error', (cause) => reject(new Error(`${name} cannot be started`, { cause })));
      child.once('exit', (code, signal) =>
        reject(new Error(`${name} ended with ${code ?? signal} before it was ready`)),
      );
    });
    failed.catch(() => undefined);
    try {
      await Promise.race([failed, this.#until(ready, deadlineMs)]);
    } catch (error) {
      await this.kill();
      const tail = this.#log.split('\n').slice(-40).join('\n');
      throw new Error(`${(error as Error).message}\n${tail}`, { cause: error });
    }
  }

  async #until(ready: Program['ready'], deadlineMs: number): Promise<void> {
    const deadline = Date.now() + deadlineMs;
    while (!(await ready(this).catch(() => false))) {
      if (Date.now() > deadline) throw new Error(`${this.#program.name} was not ready within ${deadlineMs} ms`);
      if (!this.running) return;
      await delay(25);
    }
  }
}

/** If util-linux is installed, the kernel ends our children even when this process is killed outright. */
function lifeline(): string[] {
  try {
    accessSync('/usr/bin/setpriv');
    return ['/usr/bin/setpriv', '--pdeathsig', 'KILL', '--'];
  } catch {
    return [];
  }
}

/** The `Server` of one daemon and its directory. */
export function serverOf(daemon: Daemon, dir: string): Server {
  const stop = async (): Promise<void> => {
    await daemon.stop();
    discard(dir);
  };
  return {
    dir,
    log: () => daemon.log(),
    stop,
    kill: (signal) => daemon.kill(signal),
    restart: () => daemon.restart(),
    [Symbol.asyncDispose]: stop,
  };
}

/** Runs a program to its end and returns its stdout; a non-zero exit is an error with its stderr. */
export async function output(
  file: string,
  args: readonly string[],
  options: { cwd?: string; env?: Readonly<Record<string, string>>; input?: string } = {},
): Promise<string> {
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { PATH: process.env.PATH ?? '', HOME: options.cwd ?? tmpdir(), ...options.env },
  });
  running.add(child);
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  child.stdin.on('error', () => undefined).end(options.input ?? '');
  const [code] = await once(child, 'close').finally(() => running.delete(child));
  if (code !== 0) throw new Error(`${file.split('/').at(-1)} ${args.join(' ')} ended with ${code}\n${err}${out}`);
  return out;
}
