import assert from 'node:assert/strict';
import { copyFile, mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { adapters } from '../adapters/index.ts';
import { startKubeApi } from '../sandbox/kube/kube-api.ts';
import { customResourceDefinition } from '../src/config/schema/crd.ts';
import { gateways } from '../src/gateways.ts';
import { bundle } from './build.ts';
import { VERSION } from './image/content.ts';
import { own } from './image/image.ts';
import { capture } from './run.ts';
import { ROOT } from './tree.ts';

/** Far from any node_modules, so that everything outside the bundle is missing. */
let directory: string;
let file: string;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'meshcert-bundle-'));
  file = await bundle(directory);
});

after(() => rm(directory, { recursive: true, force: true }));

const meshcert = (...args: string[]) => capture(file, args, directory);

test('the bundle is one executable that needs nothing beside it', async () => {
  const { code, output } = await meshcert('--version');
  assert.deepEqual([code, output], [0, `meshcert ${VERSION}\n`]);
  const { size } = await stat(file);
  assert.ok(size < 3_000_000, `the bundle has ${size} bytes; something large has come in`);
});

test('the product contains nothing of the sandbox, and says so when the demo is not beside it', async () => {
  const { sources } = JSON.parse(await readFile(`${file}.map`, 'utf8')) as { sources: readonly string[] };
  assert.deepEqual(
    sources.filter((source) => source.includes('/sandbox/')),
    [],
  );
  const alone = join(directory, 'alone.d', 'meshcert.js');
  await mkdir(join(directory, 'alone.d'));
  await copyFile(file, alone);
  const { code, output } = await capture(process.execPath, [alone, 'demo', '--for', '1s'], directory);
  assert.equal(code, 1);
  assert.match(output, /^meshcert demo: this installation does not include the demo; install the npm package/);
});

test('nothing in the bundle imports node:http, which would load fetch', async () => {
  const text = await readFile(file, 'utf8');
  assert.doesNotMatch(text, /\b(from|import) ?"(node:)?http"/);
  assert.match(text, /require\("node:http"\)/);
});

test('the image says that the bundle is an ES module, so that Node.js does not read it twice', async () => {
  const { content } = (await own(file)).find(({ path }) => path === 'package.json') ?? {};
  assert.deepEqual(JSON.parse(String(content)), { type: 'module' });
});

test('each command of the bundle can be loaded', async () => {
  const { output } = await meshcert('--help');
  const names = [...output.matchAll(/^ {2}([a-z]+) {2,}/gm)]
    .map(([, name = '']) => name)
    .filter((name) => name !== 'help');
  assert.ok(names.length >= 8, output);
  for (const name of names) {
    const { code, output: usage } = await meshcert(name, '--help');
    assert.equal(code, 0, usage);
    assert.match(usage, new RegExp(`^Usage: meshcert ${name}`));
  }
});

/** If a build changes a regular expression, the `pattern` of a schema changes too, which Go programs read. */
test('the bundle prints the committed definition and schema', async () => {
  for (const [args, path] of [
    [['schema', '--crd'], 'deploy/crd/meshcertificate.yaml'],
    [['schema'], 'docs/reference/mesh-certificate.schema.json'],
  ] as const) {
    const { output } = await meshcert(...args);
    const committed = await readFile(join(ROOT, path), 'utf8');
    assert.equal(output, committed.replace(/^#.*\n/, ''), path);
  }
});

test('the bundle connects to a cluster by a kubeconfig', async () => {
  const kube = await startKubeApi({ objects: [customResourceDefinition(adapters, gateways)] });
  try {
    const kubeconfig = join(directory, 'kubeconfig');
    await kube.writeKubeconfig(kubeconfig);
    const { code, output } = await meshcert('status', '--kubeconfig', kubeconfig);
    assert.equal(code, 0, output);
    assert.match(output, /No MeshCertificates found/);
  } finally {
    await kube.stop();
  }
});
