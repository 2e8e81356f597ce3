import { CLUSTER_FLAGS } from './cluster-flags.ts';
import type { AnyCommand } from './command.ts';
import type { Flag } from './flags.ts';

const LEADING: readonly Flag<unknown>[] = Object.values(CLUSTER_FLAGS);

/**
 * The words as commander expects them. kubectl also takes its cluster flags before the command, `-o=json` for
 * `-o json`, and `--watch=true` for `--watch`.
 */
export function normalised(argv: readonly string[], commands: readonly AnyCommand[]): readonly string[] {
  const { leading, rest } = leadingFlags(argv);
  const command = commands.find(({ name }) => name === rest[0]);
  if (!command) return leading.length === 0 ? argv : [...rest, ...leading];
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
