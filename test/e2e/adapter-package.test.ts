import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { parse } from 'yaml';
import type { VaultServer } from '../../examples/adapter-vault/test/vault-server.ts';
import { type SandboxCluster, startCluster } from '../../sandbox/cluster/cluster.ts';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { builtPackage } from '../../scripts/release/built-package.ts';
import { capture } from '../../scripts/run.ts';
import { ROOT } from '../../scripts/tree.ts';
import { systemClock } from '../../src/async/clock.ts';
import { reflect } from '../../src/kube/reflector.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { silentLog } from '../../src/mesh/log.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { AgentProcess } from '../hostile/agent-process.ts';
import { cliRefusal } from '../support/openssl-cli.ts';

const EXAMPLE = join(ROOT, 'examples/adapter-vault');

/** Runs a program in a directory, and expects it to succeed. */
async function run(directory: string, program: string, ...args: readonly string[]): Promise<string> {
  const { code, output } = await capture(program, args, directory);
  assert.equal(code, 0, `${program} ${args.join(' ')}\n${output}`);
  return output;
}

/**
 * The example as its author has it: in its own directory, with meshcert from the tarball that is published. The
 * compiler and the types of Node.js are those of this repository, since tests have no network.
 */
describe('the package for authors of adapters', () => {
  let home: string;
  let example: string;
  let installed: string;
  let bundle: string;
  /** Every file that the compiler read. */
  let compiled: string;
  const tool = (name: string) => join(ROOT, 'node_modules/.bin', name);

  before(async () => {
    home = await mkdtemp(join(tmpdir(), 'meshcert-author-'));
    example = join(home, 'adapter');
    bundle = await builtBundle();
    const tarball = await builtPackage();
    for (const part of ['src', 'test', 'tsconfig.json'])
      await cp(join(EXAMPLE, part), join(example, part), { recursive: true });
    await writeFile(join(example, 'package.json'), JSON.stringify({ name: 'adapter', private: true, type: 'module' }));
    await run(example, 'npm', 'install', '--offline', '--no-audit', '--no-fund', tarball);
    installed = join(example, 'node_modules/meshcert');
    for (const name of ['@types', 'undici-types']) {
      await symlink(join(ROOT, 'node_modules', name), join(example, 'node_modules', name));
    }
    // With the declarations of the package, and with no types but those of Node.js.
    const strict = ['--skipLibCheck', 'false', '--types', 'node', '--module', 'nodenext', '--strict'];
    const libraries = ['--lib', 'es2023,esnext.disposable', '--target', 'es2023'];
    compiled = await run(example, tool('tsc'), '-p', 'tsconfig.json', '--listFiles', ...strict, ...libraries);
    const options = ['--bundle', '--platform=node', '--format=esm', '--outfile=dist/vault.js', '--log-level=warning'];
    await run(example, tool('esbuild'), 'dist/src/vault.js', ...options);
  });

  after(() => rm(home, { recursive: true }));

  it('installs no other package, and has declarations that need none', async () => {
    const { packages } = JSON.parse(await readFile(join(example, 'package-lock.json'), 'utf8')) as { packages: object };
    assert.deepEqual(Object.keys(packages), ['', 'node_modules/meshcert']);
    const types = await readFile(join(installed, 'dist/types/src/mesh/outside/api.d.ts'), 'utf8');
    assert.match(types, /AdapterCore as Adapter/);
    const read = compiled.split('\n').filter((file) => file.endsWith('.d.ts'));
    assert.ok(read.includes(join(installed, 'dist/types/src/mesh/outside/api.d.ts')), compiled);
    const others = ['typescript', '@types/node', 'undici-types', 'meshcert'].map((name) => `/node_modules/${name}/`);
    assert.deepEqual(
      read.filter((file) => !others.some((name) => file.includes(name))),
      [],
    );
  });

  it('tests the example with the exported suite', async () => {
    // A runner within a runner reports to the outer one.
    const node = ['-u', 'NODE_TEST_CONTEXT', process.execPath];
    const output = await run(example, 'env', ...node, '--test', '--test-reporter=tap', 'dist/test/vault.test.js');
    assert.match(output, /ok \d+ - The Vault adapter keeps the contract of adapters/);
    const passed = Number(/^# pass (\d+)$/m.exec(output)?.[1]);
    assert.ok(passed >= 15, output);
    assert.match(output, /^# fail 0$/m);
  });

  it('is enough for an adapter that the shipped agent runs', async () => {
    const adapter = join(home, 'vault.js');
    await cp(join(example, 'dist/vault.js'), adapter);
    const { VaultServer: Vault } = await import(pathToFileURL(join(example, 'dist/test/vault-server.js')).href);
    const vault: VaultServer = await Vault.start();
    const cluster = await startCluster({ meshes: [], sandboxes: {} });
    try {
      await publishes(cluster, vault, { adapter, bundle, home });
    } finally {
      await cluster.stop();
      await vault.stop();
    }
  });
});

const ID = 'spiffe://corp.example/ns/emissary/sa/emissary';

async function publishes(
  cluster: SandboxCluster,
  vault: VaultServer,
  { adapter, bundle, home }: { readonly adapter: string; readonly bundle: string; readonly home: string },
): Promise<void> {
  const seen: string[] = [];
  vault.accepts = (jwt) => {
    const { aud, sub } = JSON.parse(Buffer.from(jwt.split('.')[1] ?? '', 'base64url').toString());
    seen.push(sub);
    return [aud].flat().includes('vault');
  };
  const namespace = 'emissary';
  const spec = {
    vault: {
      address: vault.address,
      role: 'gateway',
      id: ID,
      auth: { role: 'meshcert', serviceAccount: 'emissary' },
      caConfigMap: 'vault-ca',
    },
  };
  cluster.api.put(parse(await run(home, process.execPath, bundle, 'schema', '--crd', '--adapter', adapter)));
  cluster.api.put({
    ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'vault-ca', namespace } },
    data: { 'ca.crt': vault.ca },
  });
  const document = {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name: 'edge', namespace },
    spec,
  };
  const file = join(home, 'edge.yaml');
  await writeFile(file, JSON.stringify(document));
  const rights = await run(home, process.execPath, bundle, 'render', '-f', file, '--rbac', '--adapter', adapter);
  assert.match(rights, /--allow-audience=vault/);
  cluster.api.put(document);
  const kubeconfig = join(home, 'kubeconfig');
  await cluster.api.writeKubeconfig(kubeconfig);
  const flags = ['-n', namespace, '--no-leader-elect', '--listen', 'off', '--kubeconfig', kubeconfig];
  await using agent = new AgentProcess(bundle, ['agent', ...flags, '--adapter', adapter]);
  const { identity, ca } = await pairOf(cluster, namespace).catch((error) => {
    throw new Error(`${error.message}\n${agent.stderr}\n${agent.lines.map((line) => JSON.stringify(line)).join('\n')}`);
  });
  const leaf = new X509Certificate(identity['tls.crt'] ?? '');
  assert.equal(leaf.subjectAltName, `URI:${ID}`);
  assert.deepEqual([...new Set(seen)], ['system:serviceaccount:emissary:emissary']);
  const [chain = '', key = '', roots = ''] = [identity['tls.crt'], identity['tls.key'], ca['ca.crt']];
  assert.equal(cliRefusal({ chain, key, roots }, Date.now()), undefined);
  const kube = ['--kubeconfig', kubeconfig];
  const doctor = await capture(process.execPath, [
    bundle,
    'doctor',
    '-n',
    namespace,
    '--agent',
    'none',
    '--adapter',
    adapter,
    ...kube,
  ]);
  assert.doesNotMatch(doctor.output, /ERR_ADAPTER|MC5006/);
}

/** What was published, once it is. */
async function pairOf({ kube }: SandboxCluster, namespace: string) {
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(60_000)]);
  const options = { clock: systemClock, random: Math.random, log: silentLog, signal };
  const secrets = reflect(kube, RESOURCES.secrets, { namespace }, options);
  const dataOf = (name: string) => {
    const found = [...secrets.items().values()].find(({ metadata }) => metadata.name === name);
    const data = Object.entries(((found as KubeObject | undefined)?.data ?? {}) as Record<string, string>);
    return Object.fromEntries(data.map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]));
  };
  try {
    for await (const _ of secrets.changes()) {
      const [identity, ca] = [dataOf('edge-identity'), dataOf('edge-ca')];
      if (identity['tls.crt'] && ca['ca.crt']) return { identity, ca };
    }
    throw new Error('the watch ended');
  } finally {
    stop.abort(new Error('seen'));
  }
}
