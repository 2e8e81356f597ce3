import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { goodStatus } from '../../test/support/board.ts';
import { say } from '../../test/support/io.ts';
import { customResourceDefinition } from '../config/schema/crd.ts';
import { gateways } from '../gateways.ts';
import type { Kube } from '../kube/api.ts';
import { connect } from '../kube/client.ts';
import type { KubeObject } from '../objects/objects.ts';

const NOW = Date.now();
const TYPE = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate' };
let dir: string;
let api: KubeApi;
let kube: Kube;
let env: Record<string, string>;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'meshcert-renew-'));
  api = await startKubeApi({
    namespaces: ['emissary', 'other'],
    objects: [customResourceDefinition(adapters, gateways)],
  });
  env = { KUBECONFIG: join(dir, 'config') };
  await api.writeKubeconfig(env.KUBECONFIG ?? '', { namespace: 'emissary' });
  kube = connect({ kubeconfig: env.KUBECONFIG, userAgent: 'test' });
  for (const [name, namespace, mesh] of [
    ['one', 'emissary', 'istio'],
    ['two', 'emissary', 'consul'],
    ['three', 'other', 'istio'],
  ] as const) {
    api.put({ ...TYPE, metadata: { name, namespace, labels: { mesh } }, spec: { istio: { sds: {} } } } as KubeObject);
  }
});

after(async () => {
  kube.close();
  await api.stop();
  await rm(dir, { recursive: true });
});

const asked = async (name: string, namespace = 'emissary') =>
  (await kube.get({ ...TYPE, name, namespace }))?.metadata.annotations?.['meshcert.dev/renew'];

test('a name, a label, a whole namespace and all namespaces can be requested', async () => {
  assert.equal((await say(['renew', 'one'], { env })).stdout, 'meshcertificate.meshcert.dev/one renewal requested\n');
  assert.notEqual(await asked('one'), undefined);
  assert.equal(await asked('two'), undefined);
  assert.equal((await say(['renew', '--all'], { env })).code, 0);
  assert.notEqual(await asked('two'), undefined);
  assert.equal(await asked('three', 'other'), undefined);
  assert.match((await say(['renew', '-A', '-l', 'mesh=istio'], { env })).stdout, /^\S+one .*\n\S+three .*\n$/);
  assert.notEqual(await asked('three', 'other'), undefined);
});

test('nothing is requested when one name is wrong, or when nothing matches', async () => {
  const before = await asked('one');
  const { code, stdout, stderr } = await say(['renew', 'one', 'nobody'], { env });
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /MeshCertificate emissary\/nobody does not exist; see -n/);
  assert.equal(await asked('one'), before);
  const none = await say(['renew', '-l', 'mesh=linkerd'], { env });
  assert.equal(none.code, 1);
  assert.match(none.stderr, /there is no MeshCertificate with labels mesh=linkerd in namespace emissary/);
});

test('flags that contradict each other are refused', async () => {
  for (const [argv, words] of [
    [[], /name MeshCertificates, or use --all or --selector/],
    [['one', '--all'], /--all cannot be used with a name/],
    [['one', '-A'], /--all-namespaces needs --all or --selector/],
    [['one', '--wait', '--timeout', '0s'], /--timeout "0s": expected at least 1s/],
  ] as const) {
    const { code, stderr } = await say(['renew', ...argv], { env });
    assert.equal(code, 2);
    assert.match(stderr, words);
  }
});

test('--wait ends when the agent has published a new leaf for this request', { timeout: 60_000 }, async () => {
  let answered = false;
  const answer = async () => {
    const status = goodStatus(NOW, { fingerprint: 'd4'.repeat(32), renewRequest: (await asked('one')) ?? '' });
    const object = { ...TYPE, metadata: { name: 'one', namespace: 'emissary' }, status };
    await kube.apply(object, { fieldManager: 'test', force: true, subresource: 'status' });
  };
  const { code, stdout, stderr } = await say(['renew', 'one', '--wait', '--timeout', '1m'], {
    env,
    onOutput(all) {
      if (answered || !all.includes('requested')) return;
      answered = true;
      answer().catch((error: Error) => assert.fail(error));
    },
  });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /one renewal requested\n.*one renewed, valid until 20\d\d-/);
});

test('--wait fails when no agent acts, and says so', { timeout: 60_000 }, async () => {
  const { code, stderr } = await say(['renew', 'two', '--wait', '--timeout', '1s'], { env });
  assert.equal(code, 1);
  assert.match(
    stderr,
    /meshcert renew: emissary\/two was not renewed: no agent acted on the request\. Check that an agent/,
  );
});

test('a Lease that was not renewed for long is a warning', async () => {
  const old = new Date(NOW - 3 * 3_600_000).toISOString().replace('Z', '000Z');
  api.put({
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: 'meshcert', namespace: 'other' },
    spec: { holderIdentity: 'agent-1', leaseDurationSeconds: 10, renewTime: old },
  } as KubeObject);
  const { code, stderr } = await say(['renew', 'three', '-n', 'other'], { env });
  assert.equal(code, 0);
  assert.match(
    stderr,
    /^Warning: no agent has renewed Lease other\/meshcert for 3h; nothing is renewed until one runs\.\n$/,
  );
});

test('--as acts as another user, with the groups of --as-group', async () => {
  await say(['renew', 'one', '--as', 'jane', '--as-group', 'dev', '--as-group=ops'], { env });
  const [last] = api.requests.entries.filter(({ verb }) => verb === 'patch').slice(-1);
  assert.equal(last?.user, 'jane');
  const alone = await say(['renew', 'one', '--as-group', 'dev'], { env });
  assert.deepEqual([alone.code, /--as-group needs --as/.test(alone.stderr)], [2, true]);
});
