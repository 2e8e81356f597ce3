import { systemClock } from '../async/clock.ts';
import { limitedTo } from '../async/linked-signal.ts';
import { RESOURCES } from '../kube/resources.ts';
import { printable } from '../mesh/secrets.ts';
import { type Completes, type Flag, UsageError } from './flags.ts';
import {
  type AnyCommand,
  CLUSTER_FLAGS,
  type ClusterFlags,
  clusterOf,
  contextsOf,
  declare,
  type Io,
  type ListedCommand,
  leadingFlags,
  namespaceOf,
  type Parameter,
} from './program.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

export const completion = declare({
  name: 'completion',
  description:
    'Prints a completion script for a shell. For "kubectl meshcert", put kubectl_complete-meshcert, a link to meshcert, ' +
    "on the PATH beside kubectl-meshcert; kubectl's own completion then asks it.",
  usage: [SHELLS.join('|')],
  parameters: [{ name: 'shell', description: 'bash, zsh or fish', required: true, choices: SHELLS }],
  flags: {},
  examples: [
    {
      does: 'Load it into this bash or zsh',
      line: 'source <(meshcert completion bash)\nsource <(meshcert completion zsh)',
    },
    { does: 'Install it for bash', line: 'meshcert completion bash > /etc/bash_completion.d/meshcert' },
    { does: 'Install it for zsh', line: `meshcert completion zsh > "\${fpath[1]}/_meshcert"` },
    { does: 'Install it for fish', line: 'meshcert completion fish > ~/.config/fish/completions/meshcert.fish' },
  ],
  run: async ({ args }, io) => {
    const shell = SHELLS.find((known) => known === args[0]);
    if (!shell) throw new UsageError(`there is no completion for ${args[0]}; expected ${SHELLS.join(', ')}`);
    return runCompletion(shell, io);
  },
});

export type Shell = 'bash' | 'zsh' | 'fish';

/** Prints the script; the shell asks `meshcert __complete` for everything. */
export async function runCompletion(shell: Shell, { stdout }: Io): Promise<number> {
  stdout.write(SCRIPTS[shell]);
  return 0;
}

/**
 * The scripts pass the words up to the cursor, and read lines of `VALUE<tab>DESCRIPTION` and a last line `:N`, as
 * kubectl's own completion does: 4 in N is "no files".
 */
const SCRIPTS: Readonly<Record<Shell, string>> = {
  bash: `# bash completion for meshcert
__meshcert_complete() {
  local IFS=$' \\t\\n' line value words=() index=0
  # Bash splits words at = and :, which the command line does not.
  while [ "$index" -le "$COMP_CWORD" ]; do
    local word="\${COMP_WORDS[index]}"
    if [ "\${#words[@]}" -gt 1 ] && { [[ $word == [=:]* ]] || [[ \${words[\${#words[@]}-1]} == *[=:] && -n $__meshcert_glued ]]; }; then
      words[\${#words[@]}-1]+="$word"
      __meshcert_glued=1
    else
      words+=("$word")
      __meshcert_glued=
    fi
    index=$((index + 1))
  done
  unset __meshcert_glued
  local current="\${words[\${#words[@]}-1]}" directive=0 candidates=()
  while IFS= read -r line; do
    case "$line" in
      :[0-9]*) directive="\${line#:}" ;;
      *) candidates+=("\${line%%$'\\t'*}") ;;
    esac
  done < <("\${words[0]}" __complete "\${words[@]:1}" </dev/null 2>/dev/null)
  COMPREPLY=()
  # Only what follows the last = or : is replaced.
  local cut=""
  case "$current" in *[=:]*) cut="\${current%"\${current##*[=:]}"}" ;; esac
  for value in "\${candidates[@]}"; do
    [[ $value == "$current"* ]] && COMPREPLY+=("\${value#"$cut"}")
  done
  if [ "\${#candidates[@]}" -eq 0 ] && [ $((directive & 4)) -eq 0 ]; then
    compopt -o filenames 2>/dev/null
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "\${current#"$cut"}")
  elif [ "\${#COMPREPLY[@]}" -eq 1 ] && [[ \${COMPREPLY[0]} == *[=,] ]]; then
    compopt -o nospace 2>/dev/null
  fi
}
complete -F __meshcert_complete meshcert
`,
  zsh: `#compdef meshcert
# zsh completion for meshcert
_meshcert() {
  local line value directive=0
  local -a candidates
  while IFS= read -r line; do
    case "$line" in
      (:[0-9]*) directive="\${line#:}" ;;
      (*)
        value="\${line%%$'\\t'*}"
        value="\${value//:/\\\\:}"
        [[ "$line" == *$'\\t'* ]] && value="$value:\${line#*$'\\t'}"
        candidates+=("$value")
        ;;
    esac
  done < <("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" </dev/null 2>/dev/null)
  if (( \${#candidates} )); then
    _describe 'meshcert' candidates
  elif (( (directive & 4) == 0 )); then
    _files
  fi
}
# Loaded from fpath it is the function itself; sourced, it has to be registered.
if [ "$funcstack[1]" = "_meshcert" ]; then
  _meshcert "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
  compdef _meshcert meshcert
fi
`,
  fish: `# fish completion for meshcert
function __meshcert_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l command $words[1]
    set -e words[1]
    set -l directive 0
    set -l count 0
    for line in ($command __complete $words </dev/null 2>/dev/null)
        if string match -qr '^:[0-9]+$' -- $line
            set directive (string sub -s 2 -- $line)
        else
            set count (math $count + 1)
            echo $line
        end
    end
    if test $count -eq 0; and test $directive -lt 4
        __fish_complete_path (commandline -ct)
    end
end
complete -c meshcert -e
complete -c meshcert -f -a '(__meshcert_complete)'
`,
};

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
export async function runComplete(listed: readonly ListedCommand[], words: readonly string[], io: Io): Promise<number> {
  const late = new Error('too late for a completion');
  using limit = limitedTo(systemClock, PATIENCE_MS, () => late, io.signal);
  const { candidates, files } = await complete(listed, words, { ...io, signal: limit.signal });
  for (const { value, description } of candidates) {
    const words = description === undefined ? [value] : [value, description];
    io.stdout.write(`${words.map(printable).join('\t')}\n`);
  }
  io.stdout.write(`:${files ? 0 : NO_FILES}\n`);
  return 0;
}

async function complete(listed: readonly ListedCommand[], words: readonly string[], io: Io): Promise<Completion> {
  const current = words.at(-1) ?? '';
  const { leading, rest } = leadingFlags(words.slice(0, -1));
  const [name, ...given] = rest;
  if (name === undefined) return first(listed, leading, current, io);
  if (name === 'help') return given.length === 0 ? named(listed, current) : NOTHING;
  const command = await listed.find((known) => known.name === name)?.load();
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
  listed: readonly ListedCommand[],
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
    return named([...listed, { name: 'help', summary: 'Show the help of a command' }], current);
  const own = [
    { value: '--help', description: 'Show this help' },
    { value: '--version', description: 'Show the version' },
  ];
  return starting([...own, ...Object.values(CLUSTER_FLAGS).map(candidateOf)], current);
}

const named = (listed: readonly Pick<ListedCommand, 'name' | 'summary'>[], current: string): Completion =>
  starting(
    listed.map(({ name, summary }) => ({ value: name, description: summary })),
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
