import type { Io } from '../declare/command.ts';

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
