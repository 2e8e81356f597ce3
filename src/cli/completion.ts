import { type Command, flagsOf, UsageError } from './command.ts';

const USAGE = `usage: meshcert completion bash|zsh|fish

Prints a completion script for the shell. Put it where your shell looks:

  bash   meshcert completion bash > /etc/bash_completion.d/meshcert
  zsh    meshcert completion zsh > "\${fpath[1]}/_meshcert"
  fish   meshcert completion fish > ~/.config/fish/completions/meshcert.fish
`;

/** Over the table of all commands. */
export const completionOf = (commands: Readonly<Record<string, { load(): Promise<Command> }>>): Command => ({
  name: 'completion',
  summary: 'Print a completion script for bash, zsh or fish',
  usage: USAGE,
  async run(argv, io) {
    const [shell, ...rest] = argv;
    const script = shell === undefined || rest.length > 0 ? undefined : SCRIPTS[shell];
    if (!script) throw new UsageError('name one shell: bash, zsh or fish');
    const all = Object.entries(commands).map(async ([name, { load }]) => [name, flagsOf(await load())] as const);
    io.stdout.write(script(await Promise.all(all)));
    return 0;
  },
});

type Flags = readonly (readonly [command: string, flags: readonly string[]])[];

const SCRIPTS: Readonly<Record<string, (flags: Flags) => string>> = {
  bash: (flags) => `_meshcert() {
  local word="\${COMP_WORDS[COMP_CWORD]}" candidates=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    candidates="${flags.map(([name]) => name).join(' ')}"
  else
    case "\${COMP_WORDS[1]}" in
${flags.map(([name, all]) => `      ${name}) candidates="${all.join(' ')}" ;;`).join('\n')}
    esac
  fi
  COMPREPLY=($(compgen -W "$candidates" -- "$word"))
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}
complete -o filenames -F _meshcert meshcert
`,
  zsh: (flags) => `#compdef meshcert
_meshcert() {
  if (( CURRENT == 2 )); then
    compadd -- ${flags.map(([name]) => name).join(' ')}
    return
  fi
  case "\${words[2]}" in
${flags.map(([name, all]) => `    ${name}) compadd -- ${all.join(' ')} ;;`).join('\n')}
  esac
  _files
}
_meshcert "$@"
`,
  fish: (flags) =>
    `complete -c meshcert -n __fish_use_subcommand -f -a "${flags.map(([name]) => name).join(' ')}"\n${flags
      .flatMap(([name, all]) =>
        all
          .filter((flag) => flag.startsWith('--'))
          .map((flag) => `complete -c meshcert -n "__fish_seen_subcommand_from ${name}" -l ${flag.slice(2)}`),
      )
      .join('\n')}\n`,
};
