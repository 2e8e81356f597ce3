import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT } from '../../../scripts/tree.ts';
import { peer } from '../build.ts';
import { goModuleSource } from './go-module.ts';

const VERSION = 'github.com/emissary-ingress/emissary/v3@v3.10.0';

export interface JudgedCluster {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly certificate: boolean;
}

export interface Judged {
  readonly clusters?: readonly JudgedCluster[];
  /** The class of the exception that ended the whole configuration. */
  readonly failure?: string;
}

/** What the Python code of Emissary makes of each YAML text, in order. Its source is a Go module, which go.sum pins. */
export async function judgedByEmissary(texts: readonly string[]): Promise<Judged[]> {
  const packages = await peer('emissary-packages');
  const source = await goModuleSource('emissary', VERSION);
  const child = spawn('python3', [join(ROOT, 'test/peers/python/emissary-judge.py')], {
    env: { PATH: process.env.PATH, PYTHONPATH: `${join(source, 'python')}:${packages}`, PYTHONDONTWRITEBYTECODE: '1' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.on('error', () => {});
  child.stdin.end(texts.map((yaml, id) => `${JSON.stringify({ id, yaml })}\n`).join(''));
  const answers: Judged[] = [];
  for await (const line of createInterface({ input: child.stdout })) answers.push(JSON.parse(line));
  if (answers.length !== texts.length) throw new Error(`Emissary's code answered ${answers.length} of ${texts.length}`);
  return answers;
}
