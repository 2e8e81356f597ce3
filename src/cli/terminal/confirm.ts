import { createInterface } from 'node:readline/promises';
import { type Io, UsageError } from '../declare/command.ts';

/** Asks on the terminal; anything but yes is no. Without a terminal nobody can be asked, so --yes must say it. */
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
