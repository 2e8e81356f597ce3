import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ROOT } from '../../scripts/tree.ts';
import { peer } from '../peers/build.ts';
import { output } from '../peers/servers/process.ts';
import type { Cluster } from './cluster.ts';

interface Block {
  readonly language: string;
  readonly text: string;
}

/** The fenced blocks of one section of a document, in order, without the indentation of a surrounding list. */
export async function blocksOf(file: string, heading: string): Promise<Block[]> {
  const text = await readFile(join(ROOT, file), 'utf8');
  const start = text.indexOf(`\n${heading}\n`);
  if (start === -1) throw new Error(`${file} has no section ${heading}`);
  const level = /^#+/.exec(heading)?.[0].length ?? 1;
  const rest = text.slice(start + heading.length + 2);
  const end = rest.search(new RegExp(`^#{1,${level}} `, 'm'));
  const section = end === -1 ? rest : rest.slice(0, end);
  return [...section.matchAll(/^( *)```(\w+)\n([\s\S]*?)^ *```$/gm)].map(
    ([, indent = '', language = '', body = '']) => ({
      language,
      text: body.replace(new RegExp(`^${indent}`, 'gm'), ''),
    }),
  );
}

/** A shell of a user of the cluster: with kubectl and helm, in its own directory. */
export interface Shell {
  readonly dir: string;
  /** Runs a script, stops at its first failure, and resolves to its output. */
  run(script: string): Promise<string>;
}

export async function openShell(cluster: Cluster, dir: string): Promise<Shell> {
  const programs = await Promise.all([peer('kubectl'), peer('helm')]);
  const path = [...programs.map((file) => dirname(file)), process.env.PATH].join(':');
  return {
    dir,
    run: (script) =>
      output('bash', ['--norc', '-euo', 'pipefail', '-c', `exec 2>&1\n${script}`], {
        cwd: dir,
        env: { PATH: path, KUBECONFIG: cluster.kubeconfigFile },
      }),
  };
}

/** A chart as it is published: one file. */
export async function packChart(dir: string, chart = join(ROOT, 'deploy/helm/meshcert')): Promise<string> {
  const said = await output(await peer('helm'), ['package', chart, '--destination', dir], { cwd: dir });
  const file = /saved it to: (\S+)/.exec(said)?.[1];
  if (file === undefined) throw new Error(`helm package said: ${said}`);
  return file;
}
