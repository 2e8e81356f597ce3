import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, chmod, mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { promisify } from 'node:util';
import { DEBIAN, NODE, USERS } from './content.ts';
import type { Architecture } from './oci.ts';
import type { Entry } from './tar.ts';

const run = promisify(execFile);

/** Where downloads are cached between runs. */
export const CACHE = join(process.env.MESHCERT_CACHE ?? join(homedir(), '.cache', 'meshcert'), 'image');

/** A Debian package of which the image contains files. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
}

export interface Base {
  readonly files: readonly Entry[];
  readonly packages: readonly DebianPackage[];
}

/** The directory of the image's Node.js, with the program `node` and its LICENSE. */
export function nodeOf(architecture: Architecture, cache: string): Promise<string> {
  const { package: name } = NODE[architecture];
  return kept(cache, `${name}-${NODE.version}`, (into) => fetchNode(architecture, into));
}

/** Everything in the image except meshcert itself. */
export async function base(architecture: Architecture, cache: string): Promise<Base> {
  const node = await nodeOf(architecture, cache);
  const debian = await kept(cache, `debian-${architecture}`, (into) => fetchDebian(architecture, into));
  const files: Entry[] = [
    { path: 'usr/bin/node', mode: 0o755, content: await readFile(join(node, 'node')) },
    { path: 'usr/share/licenses/node/LICENSE', mode: 0o644, content: await readFile(join(node, 'LICENSE')) },
    ...Object.entries(USERS).map(([path, text]) => ({ path, mode: 0o644, content: Buffer.from(text) })),
  ];
  const packages: DebianPackage[] = [];
  for (const [name, { libraries, copyright }] of Object.entries(DEBIAN[architecture])) {
    const root = join(debian, name);
    packages.push({ name, version: await readFile(join(debian, `${name}.version`), 'utf8') });
    for (const path of libraries) files.push({ path, mode: 0o755, content: await readFile(await within(root, path)) });
    if (!copyright) continue;
    const content = await readFile(join(root, `usr/share/doc/${name}/copyright`));
    files.push({ path: `usr/share/licenses/${name}/copyright`, mode: 0o644, content });
  }
  return { files, packages };
}

/** The file that this path of an unpacked package refers to: an absolute link is relative to the package's own root. */
async function within(root: string, path: string): Promise<string> {
  const file = join(root, path);
  const target = await readlink(file).catch(() => undefined);
  if (target === undefined) return file;
  return isAbsolute(target) ? join(root, target) : join(dirname(file), target);
}

async function fetchNode(architecture: Architecture, into: string): Promise<void> {
  const { package: name, integrity, strip } = NODE[architecture];
  const pack = ['pack', '--silent', '--pack-destination', into, `${name}@${NODE.version}`];
  const { stdout } = await run('npm', pack, { cwd: into });
  const archive = join(into, stdout.trim());
  const digest = `sha512-${createHash('sha512')
    .update(await readFile(archive))
    .digest('base64')}`;
  if (digest !== integrity) throw new Error(`${name}@${NODE.version} has the digest ${digest}, not ${integrity}`);
  for (const [depth, path] of [
    [1, 'package/LICENSE'],
    [2, 'package/bin/node'],
  ]) {
    await run('tar', ['-xf', archive, '-C', into, `--strip-components=${depth}`, `${path}`]);
  }
  await rm(archive);
  // The symbols of static functions are a seventh of the binary.
  await run(strip, [join(into, 'node')]).catch((cause) => {
    throw new Error(`cannot run ${strip}; install binutils, for another architecture its cross binutils`, { cause });
  });
}

/** Each package under its name, its version in NAME.version. apt verifies packages by Debian's signatures. */
async function fetchDebian(architecture: Architecture, into: string): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'meshcert-apt-'));
  try {
    // Separate lists, since the machine's may be for another architecture.
    for (const directory of ['lists/partial', 'cache/archives/partial']) {
      await mkdir(join(scratch, directory), { recursive: true });
    }
    const options = [
      `Dir::State::Lists=${scratch}/lists`,
      `Dir::Cache=${scratch}/cache`,
      'Dir::State::status=/dev/null',
      `APT::Architecture=${architecture}`,
      `APT::Architectures=${architecture}`,
      // The user that apt switches to may not write into this directory.
      'APT::Sandbox::User=root',
    ].flatMap((option) => ['-o', option]);
    await run('apt-get', [...options, '--quiet', 'update']);
    const download = [...options, '--quiet', 'download', ...Object.keys(DEBIAN[architecture])];
    await run('apt-get', download, { cwd: scratch });
    for (const file of (await readdir(scratch)).filter((name) => name.endsWith('.deb'))) {
      const deb = join(scratch, file);
      const { stdout } = await run('dpkg-deb', ['--show', '--showformat', '$' + '{Package} $' + '{Version}', deb]);
      const [name = '', version = ''] = stdout.split(' ');
      await run('dpkg-deb', ['--extract', deb, join(into, name)]);
      await writeFile(join(into, `${name}.version`), version);
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The directory of this name below `cache`, filled the first time. */
async function kept(cache: string, name: string, fill: (into: string) => Promise<void>): Promise<string> {
  const directory = join(cache, name);
  if (await exists(directory)) return directory;
  await mkdir(cache, { recursive: true });
  const unfinished = await mkdtemp(join(cache, '.'));
  try {
    await fill(unfinished);
    await chmod(unfinished, 0o755);
    await rename(unfinished, directory).catch(async (error) => {
      if (!(await exists(directory))) throw error;
    });
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
  return directory;
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
