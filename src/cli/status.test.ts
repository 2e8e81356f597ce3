import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { Board, badStatus, goodStatus } from '../../test/support/board.ts';
import { say } from '../../test/support/io.ts';
import { systemClock } from '../async/clock.ts';
import { customResourceDefinition } from '../config/schema/crd.ts';
import { gateways } from '../gateways.ts';
import { startHttp } from '../http/server.ts';
import type { Kube } from '../kube/api.ts';
import { connect } from '../kube/client.ts';
import { silentLog } from '../mesh/log.ts';
import { type StatusRow, statusTable } from './status.ts';

const NOW = Date.now();
let kube: KubeApi;
let client: Kube;
let env: Record<string, string>;

/** A MeshCertificate with this status, as an agent would have written it. */
async function put(name: string, status: object, namespace = 'emissary'): Promise<void> {
  const object = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata: { name, namespace } };
  kube.put({ ...object, spec: { istio: { sds: {} } } });
  await client.apply({ ...object, status }, { fieldManager: 'test', force: true, subresource: 'status' });
}

before(async () => {
  kube = await startKubeApi({
    namespaces: ['emissary', 'other'],
    objects: [customResourceDefinition(adapters, gateways)],
  });
  const KUBECONFIG = join(await mkdtemp(join(tmpdir(), 'meshcert-status-')), 'config');
  await kube.writeKubeconfig(KUBECONFIG, { namespace: 'emissary' });
  env = { KUBECONFIG };
  client = connect({ kubeconfig: KUBECONFIG, context: undefined, userAgent: 'test' });
  await put('good', goodStatus(NOW));
  await put('bad', badStatus(NOW));
  await put('elsewhere', goodStatus(NOW), 'other');
});

after(async () => {
  client.close();
  await kube.stop();
});

const lines = (text: string) => text.trimEnd().split('\n');

test('the table shows those of the current namespace, like kubectl', async () => {
  const { code, stdout, stderr } = await say(['status'], { env });
  assert.equal(code, 0, stderr);
  const [head = '', ...rows] = lines(stdout.split('\n\n')[0] ?? '');
  assert.match(head, /^NAME +MESH +READY +STATE +EXPIRES +RENEWAL +ROTATIONS +IDENTITY$/);
  assert.equal(rows.length, 2);
  assert.match(stdout, /^good +istio +True +Serving +17h +8h59m +3 +spiffe:\/\/cluster\.local/m);
  assert.match(stdout, /^bad +istio +False +MeshUnreachable +- +- +3 +-$/m);
});

test('the messages of those that are not ready are below the table, each once', async () => {
  const { stdout } = await say(['status'], { env });
  assert.match(stdout, /\n\nbad\n {2}Ready=False NotPublished: .+\n/);
  assert.match(stdout, /^ {2}Published=False MeshUnreachable: ERR_MESH_UNREACHABLE: .+$/m);
  assert.equal(stdout.match(/cannot reach istiod/g)?.length, 1, 'the cause is said once');
  assert.doesNotMatch(stdout, /^good\n/m);
  const wide = await say(['status', '-A', '-o', 'wide'], { env });
  assert.match(wide.stdout, /^emissary\/bad\n {2}Ready=False/m);
});

test('-A adds the namespace, -o wide adds columns, and names select', async () => {
  const all = await say(['status', '-A', '-o', 'wide'], { env });
  assert.match(all.stdout, /^NAMESPACE +NAME .* LEAF +ROOTS +MAPPINGS +LAST-ERROR$/m);
  assert.match(all.stdout, /^other +elsewhere .* a1a1a1a1a1a1a1a1 +1\+1 retained +1\/1 +-$/m);
  assert.match(all.stdout, /^emissary +bad .* ERR_MESH_UNREACHABLE$/m);
  const one = await say(['status', 'good'], { env });
  assert.equal(lines(one.stdout).length, 2);
});

test('json and yaml hold the whole status', async () => {
  const json = JSON.parse((await say(['status', 'good', '-o', 'json'], { env })).stdout);
  assert.deepEqual(json.certificates, [{ namespace: 'emissary', name: 'good', status: goodStatus(NOW) }]);
  assert.match(
    (await say(['status', 'good', '-o', 'yaml'], { env })).stdout,
    /^certificates:\n {2}- namespace: emissary\n/,
  );
});

test('the exit code shows a missing name, and on request one that is not ready', async () => {
  const missing = await say(['status', 'nobody'], { env });
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /there is no MeshCertificate nobody here/);
  assert.equal((await say(['status', '--exit-code'], { env })).code, 1);
  assert.equal((await say(['status', 'good', '--exit-code'], { env })).code, 0);
  assert.equal((await say(['status', '-o', 'jsn'], { env })).code, 2);
});

test('an empty namespace says so, and where to look', async () => {
  const { code, stdout, stderr } = await say(['status', '-n', 'default'], { env });
  assert.deepEqual([code, stdout], [0, '']);
  assert.match(stderr, /No MeshCertificates found. See -A/);
});

test('--watch adds a line for each change until it is ended', { timeout: 30_000 }, async () => {
  const stop = new AbortController();
  let changed = false;
  const { code, stdout } = await say(['status', '-n', 'other', '--watch'], {
    env,
    signal: stop.signal,
    onOutput(all) {
      if (all.includes('elsewhere') && !changed) {
        changed = true;
        put('elsewhere', goodStatus(NOW, { rotations: 88 }), 'other').catch((error: Error) => stop.abort(error));
      }
      if (all.includes('88')) stop.abort();
    },
  });
  assert.ok(code === 0 || code === 130);
  assert.match(stdout, /elsewhere [^\n]* 3 [^\n]*\n[\s\S]*elsewhere [^\n]* 88 /);
});

test('--watch says what it waits for', { timeout: 30_000 }, async () => {
  for (const [argv, words] of [
    [['-n', 'default'], /^Waiting for MeshCertificates in namespace default\. Press Ctrl-C to end\.\n$/],
    [['-A'], /^Waiting for changes in all namespaces\. Press Ctrl-C to end\.\n$/],
  ] as const) {
    const stop = new AbortController();
    const { stderr } = await say(['status', '--watch', ...argv], {
      env,
      signal: stop.signal,
      onError: (all) => all.includes('Ctrl-C') && stop.abort(),
    });
    assert.match(stderr, words);
  }
});

test('an API server that cannot be reached is reported at once, with --watch too', { timeout: 30_000 }, async () => {
  const dead = await startKubeApi();
  const KUBECONFIG = join(await mkdtemp(join(tmpdir(), 'meshcert-status-')), 'config');
  await dead.writeKubeconfig(KUBECONFIG);
  await dead.stop();
  for (const flags of [[], ['--watch']]) {
    const { code, stderr } = await say(['status', ...flags], { env: { KUBECONFIG } });
    assert.equal(code, 1);
    assert.match(stderr, /^meshcert status: ERR_KUBE_UNREACHABLE: list meshcertificates .*Check the address/);
    assert.doesNotMatch(stderr, /again/);
  }
  const absent = await say(['status'], { env: { KUBECONFIG: '/nonexistent' } });
  assert.equal(absent.code, 1);
  assert.match(absent.stderr, /^meshcert status: ERR_KUBE_CONFIG: the kubeconfig \/nonexistent does not exist/);
});

test('labels select, names are printed for other commands, and an agent knows no labels', async () => {
  assert.equal((await say(['status', '-l', 'mesh=none'], { env })).stdout, '');
  const { stdout } = await say(['status', '-o=name'], { env });
  assert.equal(stdout, 'meshcertificate.meshcert.dev/bad\nmeshcertificate.meshcert.dev/good\n');
  const { code, stderr } = await say(['status', '--url', 'http://127.0.0.1:1', '-l', 'a=b']);
  assert.equal(code, 2);
  assert.match(stderr, /--selector cannot be used with --url/);
});

test('a server that is not an agent is recognised', async () => {
  const server = createServer((_, response) => response.end('<html>')).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const { code, stderr } = await say(['status', '--url', `http://127.0.0.1:${port}`]);
  server.close();
  assert.equal(code, 1);
  assert.match(stderr, /is not a meshcert agent; check --url/);
});

test('--url asks an agent that runs from a file', async () => {
  const board = new Board();
  board.put('istio', goodStatus(NOW));
  const http = await startHttp({
    allowedHosts: [],
    host: '127.0.0.1',
    port: 0,
    version: '1',
    source: board,
    health: () => ({ ready: true, problems: [] }),
    metrics: { expose: () => '' },
    clock: systemClock,
    log: silentLog,
  });
  try {
    const { code, stdout } = await say(['status', '--url', http.url]);
    assert.equal(code, 0);
    assert.match(stdout, /^emissary +istio +istio +True/m);
  } finally {
    await http.stop();
  }
});

test('a cluster without the definition is reported with the command that installs it', async () => {
  const bare = await startKubeApi();
  try {
    const KUBECONFIG = join(await mkdtemp(join(tmpdir(), 'meshcert-status-')), 'config');
    await bare.writeKubeconfig(KUBECONFIG);
    const { code, stderr } = await say(['status'], { env: { KUBECONFIG } });
    assert.equal(code, 1);
    assert.match(stderr, /apply deploy\/crd\/meshcertificate\.yaml/);
  } finally {
    await bare.stop();
  }
});

test('colours appear only on a terminal, and never with NO_COLOR', async () => {
  const colour = '\x1b[';
  const at = (options: object) => say(['status'], { env, ...options }).then(({ stdout }) => stdout.includes(colour));
  assert.equal(await at({ isTTY: true }), true);
  assert.equal(await at({ isTTY: false }), false);
  assert.equal(await at({ isTTY: true, env: { ...env, NO_COLOR: '1' } }), false);
});

test('one word shows the most important state', () => {
  const table = (row: StatusRow['status']) =>
    statusTable([{ namespace: 'n', name: 'x', status: row }], {
      namespaces: false,
      wide: false,
      now: NOW,
      paint: (_, text) => text,
    });
  const held = { fingerprint: 'x', reason: 'new_root', until: new Date(NOW).toISOString() };
  assert.match(table(goodStatus(NOW, { held })), /True +LeafHeld/);
  const other = { type: 'UpstreamVerified', status: 'False', reason: 'ProbeUpstreamId', message: 'another' } as const;
  const conditions = [...goodStatus(NOW).conditions, { ...other, lastTransitionTime: new Date(NOW).toISOString() }];
  assert.match(table(goodStatus(NOW, { held, conditions })), /True +UpstreamNotVerified/);
  assert.match(table(undefined), /Unknown +NoAgent/);
  assert.match(table(goodStatus(NOW, { notAfter: new Date(NOW - 300_000).toISOString() })), / -5m /);
});
