import { execFileSync } from 'node:child_process';
import { access, copyFile, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CACHE } from '../../scripts/image/sources.ts';
import { capture } from '../../scripts/run.ts';
import { ROOT } from '../../scripts/tree.ts';
import { discard, scratchDir } from '../peers/servers/process.ts';
import { packChart } from './session.ts';

/** Release 0.1.0: the last commit before the first change that docs/upgrade.md lists under "From 0.1.0". */
const COMMIT = '7dd93914ed5b764c822e640d9d094e4ac76950ba';

export interface PreviousRelease {
  readonly bundle: string;
  /** Its chart, packed. */
  readonly chart: string;
  /** Its CustomResourceDefinition. */
  readonly definition: string;
}

/** Why the release cannot be built here, for `skip`; false where the history has its commit. */
export function noHistory(): string | false {
  try {
    execFileSync('git', ['cat-file', '-e', `${COMMIT}^{commit}`], { cwd: ROOT, stdio: 'ignore' });
    return false;
  } catch {
    return `the history has no commit ${COMMIT}, which release 0.1.0 is built from: git fetch --unshallow`;
  }
}

/** Built from the repository's history by its own scripts and packages, once. */
export async function previousRelease(): Promise<PreviousRelease> {
  const directory = join(CACHE, 'previous', COMMIT);
  const release = {
    bundle: join(directory, 'meshcert.js'),
    chart: join(directory, 'chart.tgz'),
    definition: join(directory, 'meshcertificate.yaml'),
  };
  if (await exists(directory)) return release;
  const unfinished = `${directory}.${process.pid}`;
  const tree = scratchDir('previous');
  try {
    await mkdir(unfinished, { recursive: true });
    const archive = join(tree, 'tree.tar');
    await must(ROOT, 'git', 'archive', '--format=tar', `--output=${archive}`, COMMIT);
    await must(tree, 'tar', '-xf', archive);
    await must(tree, 'npm', 'ci', '--ignore-scripts', '--prefer-offline', '--no-progress');
    await must(tree, 'npm', 'run', 'build');
    await copyFile(join(tree, 'dist/meshcert.js'), join(unfinished, 'meshcert.js'));
    await copyFile(join(tree, 'deploy/crd/meshcertificate.yaml'), join(unfinished, 'meshcertificate.yaml'));
    await copyFile(await packChart(tree, join(tree, 'deploy/helm/meshcert')), join(unfinished, 'chart.tgz'));
    await rename(unfinished, directory).catch(async (error) => {
      if (!(await exists(directory))) throw error;
    });
  } finally {
    await rm(unfinished, { recursive: true, force: true });
    discard(tree);
  }
  return release;
}

async function must(cwd: string, command: string, ...args: readonly string[]): Promise<void> {
  const { code, output } = await capture(command, args, cwd);
  if (code === 0) return;
  throw new Error(`release 0.1.0 cannot be built: ${command} ${args[0]} ended with ${code}\n${output}`);
}

const exists = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  );
