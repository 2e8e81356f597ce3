import type { CommanderError } from 'commander';
import { nearest } from '../../config/nearest.ts';
import type { AnyCommand } from './command.ts';
import type { Flag } from './flags.ts';

/** What commander refused, and what the user most likely meant. `command` is undefined if it is unknown. */
export function usageMessage(
  { code, message }: CommanderError,
  command: AnyCommand | undefined,
  commands: readonly AnyCommand[],
): string {
  const [first = '', second = ''] = [...message.matchAll(/'([^']+)'/g)].map(([, quoted = '']) => quoted);
  const flag = first.split('=')[0] ?? first;
  switch (code) {
    case 'commander.unknownCommand':
      return `no command "${first}"${suggestion(
        first,
        commands.map(({ name }) => name),
      )}`;
    case 'commander.unknownOption':
      return `no flag ${flag}${meantFlag(flag, command, commands)}`;
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
