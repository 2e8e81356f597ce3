import { createInterface } from 'node:readline/promises';
import { printable } from '../../mesh/secrets.ts';
import type { Announce } from '../../onboard/say.ts';
import type { Io, Output } from '../declare/command.ts';
import { UsageError } from '../declare/usage-error.ts';

/** Asks on the terminal; anything but yes means no. Without a terminal there is no one to ask, so --yes is required. */
export async function confirmed(question: string, { stdin, stdout, signal }: Io): Promise<boolean> {
  if (!stdin?.isTTY) throw new UsageError('there is no terminal to ask for confirmation; add --yes to change anything');
  const asking = createInterface({ input: stdin, output: stdout as NodeJS.WritableStream });
  // End of input, or Ctrl-C, which a terminal in raw mode does not turn into a signal.
  const closed = new Promise<string>((resolve) => asking.once('close', () => resolve('')));
  try {
    const answer = await Promise.race([asking.question(`${question} [y/N] `, { signal }), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    asking.close();
  }
}

/**
 * Prints lines as they come; what is waited for is one line on a terminal, and otherwise a new line for each change.
 */
export function sayTo(output: Output): Announce {
  let waiting = '';
  const said = new Set<string>();
  const clear = () => {
    if (waiting && output.isTTY) output.write('\r\x1b[K');
    waiting = '';
  };
  return {
    line(text) {
      clear();
      output.write(`${printable(text)}\n`);
    },
    waiting(what) {
      const text = printable(what);
      if (output.isTTY) {
        clear();
        output.write(`... ${text}`.slice(0, (output.columns ?? 80) - 1));
      } else if (!said.has(text)) output.write(`... ${text}\n`);
      said.add(text);
      waiting = text;
    },
  };
}
