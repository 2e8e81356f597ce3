#!/usr/bin/env node
import { nearest } from '../config/nearest.ts';
import { redactText } from '../mesh/secrets.ts';
import { type Command, flagsOf, type Io, UsageError } from './command.ts';
import { keepHeapSmall } from './heap.ts';
import { VERSION } from './version.ts';

/** Loaded when named, so that no command pays for another's imports. */
const COMMANDS: Readonly<Record<string, { summary: string; load: () => Promise<Command> }>> = {
  agent: {
    summary: 'Keep the certificates of MeshCertificates published and rotated',
    load: async () => {
      keepHeapSmall();
      return (await import('./agent.ts')).agent;
    },
  },
  demo: {
    summary: 'Run a whole cluster in this process and rotate through traffic',
    load: async () => (await import('./demo.ts')).demo,
  },
  onboard: {
    summary: 'Find meshes and gateway, and take the gateway into the mesh',
    load: async () => (await import('./onboard.ts')).onboard,
  },
  offboard: {
    summary: 'Take the gateway out of the mesh again, in the safe order',
    load: async () => (await import('./offboard.ts')).offboard,
  },
  status: {
    summary: 'Show what is published, until when, and what is wrong',
    load: async () => (await import('./status.ts')).status,
  },
  inspect: {
    summary: 'Explain a PEM file, a Secret or a live SDS socket',
    load: async () => (await import('./inspect.ts')).inspect,
  },
  renew: {
    summary: 'Ask for a new certificate now',
    load: async () => (await import('./renew.ts')).renew,
  },
  doctor: {
    summary: 'Find what will hurt, in a cluster or in files to be applied',
    load: async () => (await import('./doctor.ts')).doctor,
  },
  probe: {
    summary: 'Show a published certificate to a real upstream',
    load: async () => (await import('./probe.ts')).probe,
  },
  render: {
    summary: 'Print what would be written, or the Role that it needs',
    load: async () => (await import('./render.ts')).render,
  },
  schema: {
    summary: 'Print the JSON schema or the CustomResourceDefinition',
    load: async () => (await import('./schema.ts')).schema,
  },
  completion: {
    summary: 'Print a completion script for bash, zsh or fish',
    load: async () => (await import('./completion.ts')).completionOf(COMMANDS),
  },
};

/** Runs one command line and resolves to its exit code. */
export async function main(argv: readonly string[], io: Io): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const topic = name === 'help' ? rest[0] : undefined;
    if (topic !== undefined) return main([topic, '--help'], io);
    io.stdout.write(overview());
    return name === undefined ? 2 : 0;
  }
  if (name === '--version' || name === 'version') {
    io.stdout.write(`meshcert ${VERSION}\n`);
    return 0;
  }
  const known = COMMANDS[name];
  if (!known) {
    const close = nearest(name, Object.keys(COMMANDS));
    io.stderr.write(
      `meshcert: no command "${name}"${close ? `; did you mean "${close}"?` : ''} See meshcert --help.\n`,
    );
    return 2;
  }
  const command = await known.load();
  if (rest.includes('--help') || rest.includes('-h')) {
    io.stdout.write(`${command.usage.trimEnd()}\n`);
    return 0;
  }
  try {
    return await command.run(rest, io);
  } catch (error) {
    if (io.signal.aborted) return 130;
    const { code } = error as { code?: unknown };
    const refusedByNode = typeof code === 'string' && code.startsWith('ERR_PARSE_ARGS');
    const wrongUsage = error instanceof UsageError || refusedByNode;
    const message = refusedByNode && code.endsWith('UNKNOWN_OPTION') ? unknownFlag(error, command) : messageOf(error);
    const coded = typeof code === 'string' && code.startsWith('ERR_') && !wrongUsage ? `${code}: ` : '';
    io.stderr.write(`meshcert ${name}: ${coded}${redactText(message)}\n`);
    if (wrongUsage) io.stderr.write(`See meshcert ${name} --help.\n`);
    return wrongUsage ? 2 : 1;
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function unknownFlag(error: unknown, command: Command): string {
  const [, flag] = /'(--?[^']+)'/.exec(messageOf(error)) ?? [];
  if (flag === undefined) return messageOf(error);
  const close = nearest(flag, flagsOf(command));
  return `no flag ${flag}${close === undefined ? '' : `; did you mean ${close}?`}`;
}

function overview(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return `meshcert gives an API gateway the identity of a service mesh.

usage: meshcert COMMAND [flags]

${lines.join('\n')}

meshcert COMMAND --help tells more. A kubectl plugin too: kubectl meshcert.
`;
}

/** In the order of the overview. */
export const commandNames = (): readonly string[] => Object.keys(COMMANDS);

/** Why this Node.js is too old; the least version is that of `engines` in package.json. */
export function nodeProblem(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return undefined;
  return `meshcert needs Node.js 20.19 or later, and this is ${version}; install a newer one, or use the image`;
}

/** Whoever reads the output may have had enough, as `head` has; anything else lost output. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(0);
  process.stderr.write(`meshcert: cannot write to standard output: ${error.message}\n`);
  process.exit(1);
}

async function start(): Promise<void> {
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
  process.exitCode = await main(process.argv.slice(2), { stdin, stdout, stderr, env, signal: stop.signal });
}

if (isEntry()) await start();

function isEntry(): boolean {
  const entry = process.argv[1] ?? '';
  return /(^|[\\/])(main\.ts|meshcert\.js|meshcert|kubectl-meshcert)$/.test(entry);
}
