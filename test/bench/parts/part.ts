import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from '../../../scripts/tree.ts';

/** Set by the test runner to the directory of the compiled parts. */
export const PARTS_VARIABLE = 'MESHCERT_BENCH_PARTS';

type Methods = Readonly<Record<string, (argument: never) => unknown>>;
type Argument<M> = M extends (argument: infer A) => unknown ? A : never;
type Answer<M> = M extends (...all: never[]) => infer R ? Awaited<R> : never;

interface Call {
  readonly id: number;
  readonly method: string;
  readonly argument: unknown;
}

interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** One side of a measurement in its own process, so that neither affects the other. */
export interface Part<M extends Methods> extends AsyncDisposable {
  readonly pid: number;
  call<K extends keyof M & string>(method: K, argument: Argument<M[K]>): Promise<Answer<M[K]>>;
}

export interface PartOptions {
  /** Flags of Node, such as `--expose-gc`. */
  readonly flags?: readonly string[];
  /** The Node.js to run it by; default: this one. */
  readonly node?: string;
}

/**
 * Starts `parts/<name>.ts`; its methods are those that it passed to `servePart`. The test runner has compiled it with
 * the tests; by tsx it takes three times as long to start.
 */
export function startPart<M extends Methods>(name: string, options: PartOptions = {}): Part<M> {
  const compiled = process.env[PARTS_VARIABLE];
  const file = compiled === undefined ? join(import.meta.dirname, `${name}.ts`) : join(compiled, `${name}.mjs`);
  const loader = compiled === undefined ? ['--import', join(ROOT, 'node_modules/tsx/dist/esm/index.mjs')] : [];
  const child = fork(file, [], {
    ...(options.node === undefined ? {} : { execPath: options.node }),
    execArgv: ['--enable-source-maps', ...loader, ...(options.flags ?? [])],
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  process.once('exit', () => child.kill('SIGKILL'));
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let count = 0;
  child.on('message', ({ id, value, error }: Reply) => {
    const waiter = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) waiter?.resolve(value);
    else waiter?.reject(new Error(`${name}: ${error}`));
  });
  child.once('exit', (code, signal) => {
    for (const { reject } of waiting.values()) reject(new Error(`${name} ended with ${code ?? signal}`));
    waiting.clear();
  });
  return {
    pid: child.pid ?? -1,
    call: (method, argument) =>
      new Promise((resolve, reject) => {
        const id = ++count;
        waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
        child.send({ id, method, argument } satisfies Call);
      }),
    [Symbol.asyncDispose]: () => ended(child),
  };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.disconnect();
  const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
  await gone;
  clearTimeout(timer);
}

/** Answers the calls of the parent process, and ends when that disconnects. */
export function servePart(methods: Methods): void {
  process.on('message', async ({ id, method, argument }: Call) => {
    let reply: Reply;
    try {
      const run = methods[method] as ((argument: unknown) => unknown) | undefined;
      if (!run) throw new Error(`no method ${method}`);
      reply = { id, value: await run(argument) };
    } catch (error) {
      reply = { id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    }
    process.send?.(reply);
  });
  process.once('disconnect', () => process.exit());
}

/** Milliseconds since the epoch with a fraction: comparable between the processes of one machine. */
export const preciseNow = (): number => performance.timeOrigin + performance.now();
