import { systemClock } from '../../async/clock.ts';
import { limitedTo } from '../../async/linked-signal.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { printable } from '../../mesh/secrets.ts';
import { leadingFlags } from '../declare/arguments.ts';
import { CLUSTER_FLAGS, type ClusterFlags, clusterOf, contextsOf, namespaceOf } from '../declare/cluster-flags.ts';
import type { AnyCommand, Io, Parameter } from '../declare/command.ts';
import type { Completes, Flag } from '../declare/flags.ts';

interface Candidate {
  readonly value: string;
  readonly description?: string | undefined;
}

interface Completion {
  readonly candidates: readonly Candidate[];
  /** If there are no candidates, files may be offered. */
  readonly files: boolean;
}

const NOTHING: Completion = { candidates: [], files: false };
const FILES: Completion = { candidates: [], files: true };
/** Bits of the last line, as kubectl interprets them. */
const NO_FILES = 4;
/** An API server that does not answer within this time offers no names. */
const PATIENCE_MS = 5_000;

/** Prints the candidates for the last word: a line for each, and `:0` or `:4` (no files) at the end. */
export async function runComplete(commands: readonly AnyCommand[], words: readonly string[], io: Io): Promise<number> {
  const late = new Error('too late for a completion');
  using limit = limitedTo(systemClock, PATIENCE_MS, () => late, io.signal);
  const { candidates, files } = await complete(commands, words, { ...io, signal: limit.signal });
  for (const { value, description } of candidates) {
    const words = description === undefined ? [value] : [value, description];
    io.stdout.write(`${words.map(printable).join('\t')}\n`);
  }
  io.stdout.write(`:${files ? 0 : NO_FILES}\n`);
  return 0;
}

async function complete(commands: readonly AnyCommand[], words: readonly string[], io: Io): Promise<Completion> {
  const current = words.at(-1) ?? '';
  const { leading, rest } = leadingFlags(words.slice(0, -1));
  const [name, ...given] = rest;
  if (name === undefined) return first(commands, leading, current, io);
  if (name === 'help') return given.length === 0 ? named(commands, current) : NOTHING;
  const command = commands.find((known) => known.name === name);
  if (!command) return NOTHING;
  const line = readLine(command, [...leading, ...given]);
  if (line.awaiting) return valuesOf(line.awaiting, current, '', line, io);
  if (line.onlyArguments || !current.startsWith('-')) return argument(command, current, line, io);
  const equals = /^(-[A-Za-z]|--[^=]+)=(.*)$/s.exec(current);
  if (!equals) return flagNames(command, current, line);
  const [, flagName = '', value = ''] = equals;
  const flag = flagCalled(command, flagName);
  return flag?.required ? valuesOf(flag, value, `${flagName}=`, line, io) : NOTHING;
}

/** The command itself, or a cluster flag before it. */
async function first(
  commands: readonly AnyCommand[],
  leading: readonly string[],
  current: string,
  io: Io,
): Promise<Completion> {
  const before = leading.at(-1);
  const last =
    before === undefined
      ? undefined
      : Object.values<Flag<unknown>>(CLUSTER_FLAGS).find(({ long, short }) => [long, short].includes(before));
  if (last) return valuesOf(last, current, '', { flags: {}, args: [], onlyArguments: false, awaiting: last }, io);
  if (!current.startsWith('-'))
    return named([...commands, { name: 'help', summary: 'Show the help of a command' }], current);
  const own = [
    { value: '--help', description: 'Show this help' },
    { value: '--version', description: 'Show the version' },
  ];
  return starting([...own, ...Object.values(CLUSTER_FLAGS).map(candidateOf)], current);
}

const named = (commands: readonly Pick<AnyCommand, 'name' | 'summary'>[], current: string): Completion =>
  starting(
    commands.map(({ name, summary }) => ({ value: name, description: summary })),
    current,
  );

/** The meaning of the words before the cursor. */
interface CommandLine {
  /** Values by attribute; true for a switch. */
  readonly flags: Readonly<Record<string, string | true>>;
  readonly args: readonly string[];
  /** After `--`. */
  readonly onlyArguments: boolean;
  /** The flag whose value is at the cursor. */
  readonly awaiting: Flag<unknown> | undefined;
}

function readLine(command: AnyCommand, words: readonly string[]): CommandLine {
  const flags: Record<string, string | true> = {};
  const args: string[] = [];
  let awaiting: Flag<unknown> | undefined;
  for (const [index, word] of words.entries()) {
    if (awaiting) {
      flags[awaiting.attributeName()] = word;
      awaiting = undefined;
    } else if (word === '--') {
      return { flags, args: [...args, ...words.slice(index + 1)], onlyArguments: true, awaiting: undefined };
    } else if (word.startsWith('-')) {
      const [, name = '', value] = /^(-[A-Za-z]|--[^=]+)(?:=?(.+))?$/s.exec(word) ?? [];
      const flag = flagCalled(command, name);
      if (!flag) continue;
      if (flag.required && value === undefined) awaiting = flag;
      else flags[flag.attributeName()] = value ?? true;
    } else args.push(word);
  }
  return { flags, args, onlyArguments: false, awaiting };
}

const flagsOf = (command: AnyCommand): readonly Flag<unknown>[] =>
  Object.values<Flag<unknown>>(command.flags).filter(({ hidden }) => !hidden);

const flagCalled = (command: AnyCommand, name: string): Flag<unknown> | undefined =>
  flagsOf(command).find(({ long, short }) => long === name || short === name);

/** Flags that the command line would still accept. */
function flagNames(command: AnyCommand, current: string, { flags, args }: CommandLine): Completion {
  const all = flagsOf(command);
  const given = all.filter((flag) => flags[flag.attributeName()] !== undefined);
  const replacing = args.length === 0 ? [] : (command.parameters ?? []).flatMap(({ replacedBy = [] }) => replacedBy);
  const taken = all.filter((flag) => {
    const attribute = flag.attributeName();
    if (given.includes(flag)) return flag.repeatable;
    const excluded = given.some((other) => {
      return other.excludes.includes(attribute) || flag.excludes.includes(other.attributeName());
    });
    return !excluded && !replacing.includes(attribute);
  });
  return starting([...taken.map(candidateOf), { value: '--help', description: 'Show this help' }], current);
}

function argument(command: AnyCommand, current: string, line: CommandLine, io: Io): Promise<Completion> | Completion {
  const parameters: readonly Parameter[] = command.parameters ?? [];
  const last = parameters.at(-1);
  const parameter = parameters[line.args.length] ?? (last?.variadic ? last : undefined);
  if (!parameter || parameter.replacedBy?.some((attribute) => line.flags[attribute] !== undefined)) return NOTHING;
  if (parameter.choices)
    return starting(
      parameter.choices.map((value) => ({ value })),
      current,
    );
  const [before = ''] = line.args;
  const isAfter = parameter.after !== undefined && before in parameter.after;
  if (isAfter && line.args.length > 1) return NOTHING;
  return offered(isAfter ? parameter.after[before] : parameter.completes, current, '', line, io, line.args);
}

function valuesOf(
  flag: Flag<unknown>,
  current: string,
  prefix: string,
  line: CommandLine,
  io: Io,
): Promise<Completion> | Completion {
  const comma = flag.isList ? current.lastIndexOf(',') + 1 : 0;
  const before = prefix + current.slice(0, comma);
  const part = current.slice(comma);
  const taken = current.slice(0, comma).split(',');
  if (!flag.argChoices) return offered(flag.completes, part, before, line, io, taken);
  const candidates = flag.argChoices.filter((value) => !taken.includes(value)).map((value) => ({ value }));
  return prefixed(starting(candidates, part), before);
}

async function offered(
  what: Completes | undefined,
  current: string,
  prefix: string,
  line: CommandLine,
  io: Io,
  taken: readonly string[],
): Promise<Completion> {
  if (what === undefined) return NOTHING;
  if (what === 'files') return FILES;
  const names = await namesFor(what, line.flags as ClusterFlags, io).catch(() => []);
  const candidates = names.filter((name) => !taken.includes(name)).map((value) => ({ value }));
  return prefixed(starting(candidates, current), prefix);
}

const starting = (candidates: readonly Candidate[], current: string): Completion => ({
  candidates: candidates.filter(({ value }) => value.startsWith(current)),
  files: false,
});

const prefixed = ({ candidates, files }: Completion, prefix: string): Completion => ({
  candidates: candidates.map((candidate) => ({ ...candidate, value: prefix + candidate.value })),
  files,
});

const candidateOf = ({ long, flags, description }: Flag<unknown>): Candidate => ({ value: long ?? flags, description });

/** Names for a completion, from the kubeconfig or the cluster that the preceding flags name. */
async function namesFor(
  what: Exclude<Completes, 'files'>,
  flags: ClusterFlags & { readonly allNamespaces?: unknown },
  io: Io,
): Promise<readonly string[]> {
  if (what === 'contexts') return contextsOf(flags, io);
  const kube = clusterOf({ ...flags, asGroup: [] }, io);
  try {
    const [resource, selection] =
      what === 'namespaces'
        ? [RESOURCES.namespaces, {}]
        : [RESOURCES.meshCertificates, { namespace: flags.allNamespaces ? undefined : namespaceOf(flags, io) }];
    const { items } = await kube.list(resource, selection, io.signal);
    return items.map(({ metadata }) => metadata.name);
  } finally {
    kube.close();
  }
}
