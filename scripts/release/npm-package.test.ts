import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { VERSION } from '../image/content.ts';
import { capture } from '../run.ts';
import { builtPackage } from './built-package.ts';

let directory: string;
let tarball: string;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'meshcert-npm-'));
  tarball = await builtPackage();
});

after(() => rm(directory, { recursive: true, force: true }));

async function run(program: string, ...args: readonly string[]): Promise<string> {
  const { code, output } = await capture(program, args, directory);
  assert.equal(code, 0, `${program} ${args.join(' ')}\n${output}`);
  return output;
}

test('the npm package contains what runs, its declarations and its licenses, and nothing else', async () => {
  const files = (await run('tar', '-tzf', tarball)).trim().split('\n');
  const others = files
    .map((file) => file.replace(/^package\//, ''))
    .filter((file) => !/^dist\/types\/.*\.d\.ts$/.test(file))
    .map((file) => file.replace(/-[A-Z0-9]{8}\.js$/, '-HASH.js'));
  assert.deepEqual(others.sort(), [
    'LICENSE',
    'README.md',
    'dist/adapter-HASH.js',
    'dist/adapter-contract.js',
    'dist/adapter.js',
    'dist/demo.js',
    'dist/meshcert.js',
    'dist/third-party-licenses.txt',
    'package.json',
  ]);
});

test('it has no dependencies, and may be published with provenance', async () => {
  await run('tar', '-xzf', tarball);
  const manifest = JSON.parse(await readFile(join(directory, 'package/package.json'), 'utf8'));
  for (const name of ['dependencies', 'devDependencies', 'optionalDependencies', 'scripts', 'private']) {
    assert.equal(manifest[name], undefined, name);
  }
  assert.deepEqual(manifest.publishConfig, { access: 'public', provenance: true });
  // npm accepts provenance only from the repository that the package names.
  assert.equal(manifest.repository.url, 'git+https://github.com/meshcert/meshcert.git');
  const licenses = await readFile(join(directory, 'package/dist/third-party-licenses.txt'), 'utf8');
  for (const name of ['pino', '@grpc/grpc-js', 'zod', 'commander']) {
    assert.match(licenses, new RegExp(`^${name} [0-9.]+ \\(`, 'm'));
  }
  assert.doesNotMatch(licenses, /^typescript /m);
});

test('npx runs it from the tarball, without a registry', async () => {
  const npx = ['--offline', '--yes', `--package=${tarball}`];
  assert.equal(await run('npx', ...npx, 'meshcert', '--version'), `meshcert ${VERSION}\n`);
  assert.equal(await run('npx', ...npx, 'kubectl-meshcert', '--version'), `meshcert ${VERSION}\n`);
  assert.match(await run('npx', ...npx, 'meshcert', 'demo', '--help'), /^Usage: meshcert demo/);
});
