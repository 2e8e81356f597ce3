import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Answer {
  readonly ok: boolean;
  /** Both outputs, since openssl prints its findings on either. */
  readonly output: string;
}

/** Runs the openssl command as an independent judge. */
export function openssl(args: readonly string[], input?: string | Buffer): Answer {
  const { status, stdout, stderr, error } = spawnSync('openssl', args, { input });
  if (error) throw error;
  return { ok: status === 0, output: `${stdout}${stderr}` };
}

/** A directory of files for one question, deleted afterwards. */
export function withFiles<T>(files: Readonly<Record<string, string>>, use: (path: (name: string) => string) => T): T {
  const dir = mkdtempSync(join(tmpdir(), 'meshcert-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content, { mode: 0o600 });
    return use((name) => join(dir, name));
  } finally {
    rmSync(dir, { recursive: true });
  }
}
