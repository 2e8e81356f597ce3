#!/usr/bin/env node
import { basename } from 'node:path';
import { CommanderError } from 'commander';
import { printable, safeMessage } from '../mesh/secrets.ts';
import { COMMANDS } from './commands.ts';
import { UsageError } from './flags.ts';
import { type AnyCommand, commandOf, type Io, normalised, programOf, usageMessage } from './program.ts';

import { describeFailure, guarded } from './terminal.ts';

/** Called by completion scripts: the words up to the cursor follow. */
const COMPLETE = '__complete';
/** The name under which kubectl calls a plugin for completions. */
const KUBECTL_COMPLETE = 'kubectl_complete-meshcert';

const LISTS: ReadonlySet<unknown> = new Set(['ERR_CONFIG', 'ERR_ONBOARD_INVALID']);

/** Runs one command line and resolves to its exit code. */
export async function main(argv: readonly string[], given: Io): Promise<number> {
  const { stdin, stdout, stderr, env, signal } = given;
  const io: Io = { stdin, stdout: guarded(stdout), stderr: guarded(stderr), env, signal };
  if (argv[0] === COMPLETE) {
    const { runComplete } = await import('./completion.ts');
    return runComplete(COMMANDS, argv.slice(1), io);
  }
  let code = 0;
  const command = await commandOf(argv, COMMANDS);
  const program = programOf(COMMANDS, command, io, (ended) => {
    code = ended;
  });
  if (argv.length === 0) {
    program.outputHelp();
    return 2;
  }
  try {
    await program.parseAsync([...normalised(argv, command)], { from: 'user' });
    return code;
  } catch (error) {
    if (io.signal.aborted) return 130;
    return report(error, command, io);
  }
}

async function report(error: unknown, command: AnyCommand | undefined, { stderr }: Io): Promise<number> {
  if (error instanceof CommanderError && error.exitCode === 0) return 0;
  const where = command === undefined ? 'meshcert' : `meshcert ${command.name}`;
  const isUsage = error instanceof UsageError || error instanceof CommanderError;
  const message =
    error instanceof CommanderError ? await usageMessage(error, command, COMMANDS) : describeFailure(error);
  // These put each mistake on a line of its own, which they make printable themselves.
  const isList = LISTS.has((error as { code?: unknown } | undefined)?.code);
  const lines = isList ? message.split('\n') : [message];
  stderr.write(`${where}: ${lines.map(printable).join('\n')}\n`);
  if (isUsage) stderr.write(`See "${where} --help".\n`);
  return isUsage ? 2 : 1;
}

/** Why this Node.js is too old; the least version is that of `engines` in package.json. */
export function nodeProblem(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return undefined;
  return `meshcert needs Node.js 20.19 or later, and this is ${version}; install a newer one, or use the image`;
}

/** The reader of the output may have stopped, as `head` does; any other error lost output. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(0);
  process.stderr.write(`meshcert: cannot write to standard output: ${error.message}\n`);
  process.exit(1);
}

const FRAMES_SHOWN = 10;
const UNHANDLED = 'ERR_UNHANDLED';

/**
 * What nothing handled ends the process, and Kubernetes starts it again. Node.js would print the error with all its
 * members, which may be keys.
 */
function onUnhandled(error: unknown): void {
  const thrown = error instanceof Error ? error : new Error(String(error));
  const frames = (thrown.stack ?? '').split('\n').filter((line) => /^ +at /.test(line));
  const lines = [
    `meshcert: ${UNHANDLED}: ${safeMessage(`${thrown.name}: ${thrown.message}`)}`,
    ...frames.slice(0, FRAMES_SHOWN).map(printable),
    'Where a file of --adapter is named above, correct it, or run it in an agent of its own. Otherwise, please report it.',
  ];
  process.stderr.write(`${lines.join('\n')}\n`);
  process.exit(1);
}

async function start(): Promise<void> {
  process.on('uncaughtException', onUnhandled);
  process.stdout.on('error', onOutputError);
  process.stderr.on('error', () => {});
  const problem = nodeProblem(process.versions.node);
  if (problem) {
    process.stderr.write(`${problem}\n`);
    process.exitCode = 1;
    return;
  }
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      stop.abort(new Error(name));
      // A second signal ends at once.
      process.once(name, () => process.exit(130));
    });
  }
  const { stdin, stdout, stderr, env } = process;
  const [, file = '', ...words] = process.argv;
  const argv = basename(file) === KUBECTL_COMPLETE ? [COMPLETE, ...words] : words;
  process.exitCode = await main(argv, { stdin, stdout, stderr, env, signal: stop.signal });
}

if (isEntry()) await start();

function isEntry(): boolean {
  const names = ['main.ts', 'meshcert.js', 'meshcert', 'kubectl-meshcert', KUBECTL_COMPLETE];
  return names.includes(basename(process.argv[1] ?? ''));
}
