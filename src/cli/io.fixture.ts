import type { Command, Io } from './command.ts';
import { main } from './main.ts';

export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line as the shell would, with its own environment and outputs kept as text. */
export async function say(
  argv: readonly string[],
  options: { env?: Io['env']; signal?: AbortSignal; isTTY?: boolean; onOutput?: (all: string) => void } = {},
): Promise<Said> {
  let stdout = '';
  let stderr = '';
  const code = await main(argv, {
    stdout: {
      isTTY: options.isTTY ?? false,
      write(text) {
        stdout += text;
        options.onOutput?.(stdout);
      },
    },
    stderr: { write: (text) => (stderr += text) },
    env: options.env ?? {},
    signal: options.signal ?? new AbortController().signal,
  });
  return { code, stdout, stderr };
}

/** Lines of usage that a terminal of 80 columns would break. */
export const tooLong = ({ usage }: Command): string[] => usage.split('\n').filter((line) => line.length > 80);
