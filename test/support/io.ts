import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { builtBundle } from '../../scripts/built-bundle.ts';
import type { main } from '../../src/cli/main.ts';
import type { Io } from '../../src/cli/program.ts';

const bundle = builtBundle();

/** The shipped program, within this process. */
export async function shippedMain(): Promise<typeof main> {
  const { main } = (await import(pathToFileURL(await bundle).href)) as typeof import('../../src/cli/main.ts');
  return main;
}

export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line of the built bundle in its own environment and captures its output as text. */
export async function say(
  argv: readonly string[],
  options: {
    env?: Io['env'];
    signal?: AbortSignal;
    isTTY?: boolean;
    stdin?: string;
    onOutput?: (all: string) => void;
    onError?: (all: string) => unknown;
  } = {},
): Promise<Said> {
  let stdout = '';
  let stderr = '';
  const main = await shippedMain();
  const code = await main(argv, {
    stdin: options.stdin === undefined ? undefined : Readable.from([options.stdin]),
    stdout: {
      isTTY: options.isTTY ?? false,
      write(text) {
        stdout += text;
        options.onOutput?.(stdout);
      },
    },
    stderr: {
      write(text) {
        stderr += text;
        options.onError?.(stderr);
      },
    },
    env: options.env ?? {},
    signal: options.signal ?? new AbortController().signal,
  });
  return { code, stdout, stderr };
}
