import { spawn } from 'node:child_process';
import { ROOT } from './tree.ts';

/** Runs a command at the root with our own terminal; resolves to its exit code, 128 + n when a signal ended it. */
export function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<number> {
  return settle(spawn(command, args, { cwd: ROOT, env, stdio: 'inherit' }));
}

/** The same, with both outputs captured as text. */
export async function capture(
  command: string,
  args: readonly string[],
  cwd: string = ROOT,
): Promise<{ code: number; output: string }> {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  return { code: await settle(child), output };
}

function settle(child: ReturnType<typeof spawn>): Promise<number> {
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  process.on('SIGINT', forward).on('SIGTERM', forward);
  return new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 143)));
  }).finally(() => process.off('SIGINT', forward).off('SIGTERM', forward));
}
