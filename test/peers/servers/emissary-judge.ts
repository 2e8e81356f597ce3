import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT } from '../../../scripts/tree.ts';
import { peer } from '../build.ts';
import { goModuleSource } from './go-module.ts';

const VERSION = 'github.com/emissary-ingress/emissary/v3@v3.10.0';

export interface JudgedCluster {
  readonly name: string;
  /** Null where the endpoints come from a resolver. */
  readonly host: string | null;
  readonly port: number | null;
  /** Null without TLS; else the file of each part, below the directory of Secrets, and null for a part without a file. */
  readonly tls: Readonly<Record<string, string | null>> | null;
}

export interface Judged {
  readonly clusters?: readonly JudgedCluster[];
  /** The class of the exception that ended the whole configuration. */
  readonly failure?: string;
}

/** What the Python code of Emissary makes of each YAML text, in order. */
export async function judgedByEmissary(texts: readonly string[]): Promise<Judged[]> {
  return run(
    ['emissary-judge.py'],
    texts.map((yaml, id) => ({ id, yaml })),
  );
}

export interface Followed {
  /** Of `/ambassador/v0/diag/?json=true`. */
  readonly diagnostics: object;
  /** What Envoy is given. */
  readonly clusters: readonly Readonly<Record<string, unknown>>[];
}

/** What Emissary's diagd makes of these snapshots, one after the other; it writes the files of Secrets below a directory. */
export async function followedByEmissary(snapshots: readonly object[], directory: string): Promise<Followed[]> {
  return run(['emissary-diagnostics.py', directory], snapshots);
}

/** The source of Emissary is a Go module, which go.sum pins. */
async function run<T>([script = '', ...args]: readonly string[], requests: readonly object[]): Promise<T[]> {
  const packages = await peer('emissary-packages');
  const source = await goModuleSource('emissary', VERSION);
  const child = spawn('python3', [join(ROOT, 'test/peers/python', script), ...args], {
    env: { PATH: process.env.PATH, PYTHONPATH: `${join(source, 'python')}:${packages}`, PYTHONDONTWRITEBYTECODE: '1' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.on('error', () => {});
  child.stdin.end(requests.map((request) => `${JSON.stringify(request)}\n`).join(''));
  const answers: T[] = [];
  for await (const line of createInterface({ input: child.stdout })) answers.push(JSON.parse(line));
  if (answers.length !== requests.length)
    throw new Error(`Emissary's code answered ${answers.length} of ${requests.length}`);
  return answers;
}
