import { open } from 'node:fs/promises';
import type { Io } from '../declare/command.ts';
import { UsageError } from '../declare/usage-error.ts';
import { systemReason } from './failure.ts';

/** Larger files are neither certificates nor manifests; and a device never ends. */
const LARGEST = 16 * 1024 * 1024;

/** The text of a file, or of standard input for `-`. Throws UsageError when it cannot be read or is larger than 16 MiB. */
export async function readInput(path: string, io: Io): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of path === '-' ? standardInput(io) : contents(path)) {
      parts.push(Buffer.from(part));
      size += parts.at(-1)?.length ?? 0;
      if (size > LARGEST) throw new UsageError(`${shown(path)} is larger than ${LARGEST / 1024 / 1024} MiB`);
    }
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(`cannot read ${shown(path)}: ${systemReason(cause)}`);
  }
  return Buffer.concat(parts).toString();
}

const shown = (path: string): string => (path === '-' ? 'standard input' : path);

function standardInput({ stdin }: Io): AsyncIterable<Buffer | string> {
  if (!stdin) throw new UsageError('there is no standard input to read');
  return stdin;
}

async function* contents(path: string): AsyncGenerator<Buffer> {
  await using file = await open(path);
  yield* file.createReadStream({ autoClose: false });
}
