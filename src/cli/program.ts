import { readFileSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Argument, Command as Commander, type CommanderError, type Help, type Option } from 'commander';
import { parse } from 'yaml';
import { nearest } from '../config/validate.ts';
import type { Kube } from '../kube/api.ts';
import { type ConnectOptions, connect } from '../kube/client.ts';
import { type Completes, Flag, type Flags, isGiven, text, texts, UsageError, type Values } from './flags.ts';

/** The environment of a command, which tests replace. */
export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  /** Absent: there is no one to ask. */
  readonly stdin?: (NodeJS.ReadableStream & { readonly isTTY?: boolean | undefined }) | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
}

/** A positional argument. */
export interface Parameter {
  readonly name: string;
  readonly description: string;
  readonly required?: boolean;
  /** The last one may take all remaining arguments. */
  readonly variadic?: boolean;
  readonly choices?: readonly string[];
  readonly completes?: Completes;
  /** Its completion after another first argument. */
  readonly after?: Readonly<Record<string, Completes | undefined>>;
  /** Attribute names of flags that take its place. */
  readonly replacedBy?: readonly string[];
}

/** MeshCertificates by name. */
export const CERTIFICATE_NAMES: Parameter = {
  name: 'name',
  description: 'MeshCertificates (default: all in the namespace)',
  variadic: true,
  completes: 'certificates',
};

interface Example {
  readonly does: string;
  /** One command line, or several separated by newlines. */
  readonly line: string;
}

/** The parsed command line. */
interface Given<F extends Flags> {
  readonly flags: Values<F>;
  readonly args: readonly string[];
}

/** One command. Parsing, help, completion and the reference are all generated from it. */
interface Command<F extends Flags = Flags> {
  readonly name: string;
  /** Paragraphs separated by an empty line. */
  readonly description: string;
  /** The text after `meshcert NAME`, if it says more than the flags and parameters themselves. */
  readonly usage?: readonly string[];
  readonly parameters?: readonly Parameter[];
  /** By their attribute names: `dryRun` for `--dry-run`. Their order is that of the help. */
  readonly flags: F;
  readonly examples: readonly Example[];
  /** Set if they differ from 0 done, 1 failed, 2 wrong usage. */
  readonly exitCodes?: string;
  /** Resolves to the exit code: 0 done, 1 failed, 2 wrong usage. Throws UsageError for wrong flags. */
  run(given: Given<F>, io: Io): Promise<number>;
}

/** Whatever its flags. */
// biome-ignore lint/suspicious/noExplicitAny: a list of commands has all kinds of flags
export type AnyCommand = Command<any>;

/** Infers the types of the flags. */
export const declare = <const F extends Flags>(command: Command<F>): Command<F> => command;

/** A command by its name. Its file is loaded when the command is used. */
export interface ListedCommand {
  readonly name: string;
  /** One line, for `meshcert --help`. */
  readonly summary: string;
  load(): Promise<AnyCommand>;
}

declare const MESHCERT_VERSION: string | undefined;

/** Version of the package; set when the bundle is built. */
export const VERSION = typeof MESHCERT_VERSION === 'undefined' ? '0.0.0-source' : MESHCERT_VERSION;

const GROUP = 'Cluster flags:';

/** Flags of every command that talks to a cluster, as kubectl names them. */
export const CLUSTER_FLAGS = {
  namespace: text('-n, --namespace <name>', "Namespace (default: the kubeconfig's)")
    .offers('namespaces')
    .helpGroup(GROUP),
  kubeconfig: text('--kubeconfig <file>', 'Path of a kubeconfig, instead of $KUBECONFIG')
    .offers('files')
    .helpGroup(GROUP),
  context: text('--context <name>', 'Context of the kubeconfig').offers('contexts').helpGroup(GROUP),
  as: text('--as <user>', 'User to impersonate, such as system:serviceaccount:emissary:meshcert').helpGroup(GROUP),
  asGroup: texts('--as-group <group>', 'Group to impersonate').helpGroup(GROUP),
} as const;

export type ClusterFlags = Partial<Values<typeof CLUSTER_FLAGS>>;

/** A user waits at a terminal: an API server that does not answer within this time is reported. */
const DEADLINE_MS = 10_000;

export function clusterOf(flags: ClusterFlags, io: Io, hooks: Pick<ConnectOptions, 'dated'> = {}): Kube {
  const { context, as: user, asGroup: groups = [] } = flags;
  if (user === undefined && groups.length > 0) throw new UsageError('--as-group needs --as');
  return connect({
    ...hooks,
    kubeconfig: flags.kubeconfig ?? io.env.KUBECONFIG,
    context,
    userAgent: `meshcert/${VERSION}`,
    deadlineMs: DEADLINE_MS,
    ...(user === undefined ? {} : { impersonate: { user, groups } }),
  });
}

/** The flag, or else the namespace of the kubeconfig's context, of the pod, or `default`. */
export function namespaceOf(flags: ClusterFlags, io: Io): string {
  return flags.namespace ?? ofKubeconfig(flags, io) ?? io.env.POD_NAMESPACE ?? 'default';
}

interface KubeconfigText {
  readonly 'current-context'?: string | undefined;
  readonly contexts?: readonly { readonly name: string; readonly context?: { readonly namespace?: string } }[];
}

/** The names of the kubeconfig's contexts. */
export const contextsOf = (flags: ClusterFlags, io: Io): readonly string[] =>
  (kubeconfigOf(flags, io).contexts ?? []).map(({ name }) => name);

function ofKubeconfig(flags: ClusterFlags, io: Io): string | undefined {
  const config = kubeconfigOf(flags, io);
  const name = flags.context ?? config['current-context'];
  return config.contexts?.find((context) => context.name === name)?.context?.namespace;
}

/**
 * Several files are merged, as in kubectl. Unreadable ones are skipped: the command that connects to the cluster
 * reports them.
 */
function kubeconfigOf(flags: ClusterFlags, io: Io): KubeconfigText {
  const { KUBECONFIG, HOME = '/' } = io.env;
  const paths =
    flags.kubeconfig ?? (KUBECONFIG === undefined || KUBECONFIG === '' ? join(HOME, '.kube', 'config') : KUBECONFIG);
  const files = paths.split(delimiter).map((path): KubeconfigText | null => {
    try {
      // A pipe can be read once, and a device never ends.
      return statSync(path).isFile() ? parse(readFileSync(path, 'utf8')) : null;
    } catch {
      return null;
    }
  });
  return {
    'current-context': files.map((file) => file?.['current-context']).find(Boolean),
    contexts: files.flatMap((file) => file?.contexts ?? []),
  };
}

const LEADING: readonly Flag<unknown>[] = Object.values(CLUSTER_FLAGS);

/**
 * The words as commander expects them. kubectl also takes its cluster flags before the command, `-o=json` for
 * `-o json`, and `--watch=true` for `--watch`.
 */
export function normalised(argv: readonly string[], command: AnyCommand | undefined): readonly string[] {
  const { leading, rest } = leadingFlags(argv);
  if (command === undefined || command.name !== rest[0]) return leading.length === 0 ? argv : [...rest, ...leading];
  const end = rest.indexOf('--');
  const words = end < 0 ? rest.slice(1) : rest.slice(1, end);
  const switches = Object.values<Flag<unknown>>(command.flags).filter((flag) => flag.isBoolean());
  return [
    command.name,
    ...leading,
    ...words.flatMap((word) => oneWord(word, switches)),
    ...(end < 0 ? [] : rest.slice(end)),
  ];
}

function oneWord(word: string, switches: readonly Flag<unknown>[]): readonly string[] {
  if (/^-[A-Za-z]+=/.test(word)) return [word.replace('=', '')];
  const [, name = '', value] = /^(--[^=]+)=(true|false)$/.exec(word) ?? [];
  if (!switches.some(({ long }) => long === name)) return [word];
  return value === 'true' ? [name] : [];
}

/** Cluster flags, with their values, before the command. */
export function leadingFlags(argv: readonly string[]): { leading: readonly string[]; rest: readonly string[] } {
  let index = 0;
  for (;;) {
    const word = argv[index] ?? '';
    const flag = LEADING.find(({ long, short }) => word === long || word === short || word.startsWith(`${long}=`));
    if (!flag) return { leading: argv.slice(0, index), rest: argv.slice(index) };
    index += word.includes('=') ? 1 : 2;
  }
}

const WIDTH = 80;

const INTRODUCTION = `meshcert gives an API gateway the identity of a service mesh.`;

const CLOSING = `
Run "meshcert COMMAND --help" for the flags and examples of a command. As a
kubectl plugin, each command is also "kubectl meshcert COMMAND".`;

/** The command that the words use, or ask the help of. */
export async function commandOf(
  argv: readonly string[],
  listed: readonly ListedCommand[],
): Promise<AnyCommand | undefined> {
  // A "--" before the command is skipped when the words are parsed.
  const [first, second] = leadingFlags(argv).rest.filter((word) => word !== '--');
  const wanted = first === 'help' ? second : first;
  return listed.find(({ name }) => name === wanted)?.load();
}

/**
 * The commander program: one command with its flags, and the names of all. `done` is called with the exit code of the
 * command when it ran.
 */
export function programOf(
  listed: readonly ListedCommand[],
  command: AnyCommand | undefined,
  io: Io,
  done: (code: number) => void,
): Commander {
  const program = settled(new Commander('meshcert'), io)
    .description(INTRODUCTION)
    .usage('COMMAND [flags]')
    .version(`meshcert ${VERSION}`, '--version', 'Show the version')
    .helpCommand('help [command]', 'Show the help of a command')
    .addHelpText('after', CLOSING);
  for (const { name, summary } of listed) {
    const one = name === command?.name ? subcommandOf(command, io, done) : settled(new Commander(name), io);
    program.addCommand(one.summary(summary));
  }
  return program;
}

function subcommandOf(command: AnyCommand, io: Io, done: (code: number) => void): Commander {
  const { name, description, usage, parameters = [], flags, examples, exitCodes } = command;
  const commander = settled(new Commander(name), io)
    .description(description)
    .addHelpText('after', closing(examples, exitCodes));
  if (usage) commander.usage(usage.join(`\n       meshcert ${name} `));
  for (const parameter of parameters) commander.addArgument(argumentOf(parameter));
  for (const flag of Object.values(flags)) commander.addOption(flag as Option);
  return commander.action(async () => {
    const given = commander.opts<Record<string, unknown>>();
    const values = Object.fromEntries(
      Object.entries(flags).map(([attribute, flag]) => [attribute, given[attribute] ?? (flag as Flag<unknown>).absent]),
    );
    refuseReplaced(command, values, commander.args);
    done(await command.run({ flags: values, args: commander.args }, io));
  });
}

function refuseReplaced(
  { parameters = [], flags }: AnyCommand,
  values: Record<string, unknown>,
  args: readonly string[],
) {
  if (args.length === 0) return;
  for (const { name, replacedBy = [] } of parameters) {
    const other = replacedBy.find((attribute) => isGiven(values, attribute, flags[attribute]));
    if (other !== undefined) throw new UsageError(`${flags[other].shown} cannot be used with a ${name}`);
  }
}

function argumentOf({ name, description, required = false, variadic = false, choices }: Parameter): Argument {
  const word = `${name}${variadic ? '...' : ''}`;
  const argument = new Argument(required ? `<${word}>` : `[${word}]`, description);
  return choices ? argument.choices([...choices]) : argument;
}

/** Shared settings: errors are thrown, output goes to `io`, and help has our layout. */
function settled(commander: Commander, io: Io): Commander {
  return commander
    .optionsGroup('Flags:')
    .commandsGroup('Commands:')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: () => {},
      outputError: () => {},
      getOutHelpWidth: () => WIDTH,
    })
    .configureHelp({ optionDescription, commandUsage, subcommandTerm: (one) => one.name() })
    .helpOption('-h, --help', 'Show this help')
    .showSuggestionAfterError(false);
}

function commandUsage(this: Help, commander: Commander): string {
  const path = commander.parent ? `${commander.parent.name()} ${commander.name()}` : commander.name();
  return `${path} ${commander.usage().replace('[options]', '[flags]')}`;
}

function optionDescription(option: Option): string {
  if (!(option instanceof Flag)) return option.description;
  const { absent, argChoices, shownDefault } = option;
  const isShown = typeof absent === 'string' || (typeof absent === 'number' && shownDefault === undefined);
  const standard = shownDefault ?? (isShown ? String(absent) : undefined);
  const extra = [
    ...(argChoices ? [`${argChoices.length > 1 ? 'one of ' : ''}${argChoices.join(', ')}`] : []),
    ...(standard === undefined ? [] : [`default ${standard}`]),
  ];
  return extra.length === 0 ? option.description : `${option.description} (${extra.join('; ')})`;
}

function closing(examples: readonly Example[], exitCodes: string | undefined): string {
  const shown = examples.map(({ does, line }) => `  # ${does}\n${line.replace(/^/gm, '  ')}`).join('\n\n');
  return `\nExamples:\n${shown}${exitCodes === undefined ? '' : `\n\nExit codes:\n${exitCodes.replace(/^/gm, '  ')}`}`;
}

/** What commander refused, and what the user most likely meant. `command` is undefined if it is unknown. */
export async function usageMessage(
  { code, message }: CommanderError,
  command: AnyCommand | undefined,
  listed: readonly ListedCommand[],
): Promise<string> {
  const [first = '', second = ''] = [...message.matchAll(/'([^']+)'/g)].map(([, quoted = '']) => quoted);
  const flag = first.split('=')[0] ?? first;
  switch (code) {
    case 'commander.unknownCommand':
      return `no command "${first}"${suggestion(
        first,
        listed.map(({ name }) => name),
      )}`;
    case 'commander.unknownOption':
      return `no flag ${flag}${meantFlag(flag, command, await Promise.all(listed.map((one) => one.load())))}`;
    case 'commander.optionMissingArgument':
      return `${longName(first)} needs a value`;
    case 'commander.conflictingOption':
      return `${longName(first)} cannot be used with ${longName(second)}`;
    case 'commander.missingArgument':
      return `${first} is missing`;
    case 'commander.excessArguments':
      return `too many arguments${/expected \d+ arguments? but got \d+/i.exec(message)?.[0].replace(/^/, ': ').toLowerCase() ?? ''}`;
    default:
      return message.replace(/^error: /, '').split('\n')[0] ?? message;
  }
}

function meantFlag(name: string, command: AnyCommand | undefined, commands: readonly AnyCommand[]): string {
  const own = namesOf(command);
  // Any other word of two letters would count as near.
  const close = name.startsWith('--') ? suggestion(name, own) : '';
  if (close !== '') return close;
  const others = commands.filter((other) => other !== command && namesOf(other).includes(name));
  if (others.length === 0) return '';
  return ` here; ${others.map((other) => `meshcert ${other.name}`).join(', ')} ${others.length === 1 ? 'has' : 'have'} it`;
}

function suggestion(word: string, known: readonly string[]): string {
  const close = nearest(word, known);
  return close === undefined ? '' : `; did you mean ${close}?`;
}

const namesOf = (command: AnyCommand | undefined): readonly string[] =>
  Object.values<Flag<unknown>>(command?.flags ?? {})
    .filter(({ hidden }) => !hidden)
    .flatMap(({ long, short }) => [long, short])
    .filter((name) => name !== undefined && name !== null)
    .concat('--help');

/** `--output` of `-o, --output <format>`. */
const longName = (flags: string): string => /--[\w-]+/.exec(flags)?.[0] ?? flags;
