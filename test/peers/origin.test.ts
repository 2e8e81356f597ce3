import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, it } from 'node:test';
import { openssl, withFiles } from '../property/openssl.ts';
import { say } from '../support/io.ts';
import { plantedSecrets } from '../support/planted.ts';
import { GATEWAY_ID as ID, type SdsCluster, startSdsCluster } from './parts/sds-cluster.ts';
import type { KubeApiserver } from './servers/kube-apiserver.ts';

const SECRETS = '/api/v1/namespaces/emissary/secrets';
const MALLORY = randomUUID();

let server: KubeApiserver;
let cluster: SdsCluster;
let documents: string;

before(async () => {
  cluster = await startSdsCluster({ users: [{ token: MALLORY, name: 'mallory' }] });
  ({ server, documents } = cluster);
  const inNamespace = ['-n', 'emissary'];
  await server.kubectl(['create', 'role', 'planter', '--verb=create', '--resource=secrets', ...inNamespace]);
  await server.kubectl(['create', 'rolebinding', 'planter', '--role=planter', '--user=mallory', ...inNamespace]);
});

after(() => cluster?.stop());

const field = (body: { data: Record<string, string> }, name: string): string =>
  Buffer.from(body.data[name] ?? '', 'base64').toString();

async function publish() {
  const { code, stderr } = await say([
    ...['agent', '--config', documents, '--once', '--timeout', '60s'],
    ...['--kubeconfig', server.kubeconfigFile, '-n', 'emissary', '--log-level', 'error'],
  ]);
  assert.equal(code, 0, stderr);
  const [ca, identity] = await Promise.all(
    ['istio-ca', 'istio-identity'].map((name) => server.call('GET', `${SECRETS}/${name}`)),
  );
  return { ca: ca?.body, identity: identity?.body };
}

it('a user who may only create Secrets gives the gateway neither a root nor an identity', async () => {
  const { secrets, leaf, root } = plantedSecrets('emissary', ID, Date.now());
  const as = { token: MALLORY };
  for (const secret of secrets) {
    const answer = await server.call('POST', `${SECRETS}?fieldManager=meshcert`, secret, as);
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    assert.notEqual(answer.body.metadata.uid, secret.metadata.uid, 'the API server chooses the uid');
    const own = { metadata: { annotations: { 'meshcert.dev/uid': answer.body.metadata.uid } } };
    const path = `${SECRETS}/${secret.metadata.name}`;
    const type = { ...as, contentType: 'application/merge-patch+json' };
    assert.equal((await server.call('PATCH', path, own, type)).status, 403);
    const apply = { ...as, contentType: 'application/apply-patch+yaml' };
    assert.equal((await server.call('PATCH', `${path}?fieldManager=meshcert&force=true`, own, apply)).status, 403);
  }
  const { ca, identity } = await publish();
  for (const body of [ca, identity]) {
    assert.equal(body.metadata.annotations['meshcert.dev/uid'], body.metadata.uid);
    assert.deepEqual([body.metadata.ownerReferences, body.metadata.labels.planted], [undefined, undefined]);
    assert.equal(body.metadata.annotations['meshcert.dev/root-times'], undefined);
  }
  assert.deepEqual(Object.keys(ca.data).sort(), ['ca.crt', 'tls.crt']);
  assert.deepEqual(Object.keys(identity.data).sort(), ['ca.crt', 'tls.crt', 'tls.key']);
  const files = { roots: field(ca, 'tls.crt'), planted: leaf.pem, ours: field(identity, 'tls.crt'), root: root.pem };
  withFiles(files, (path) => {
    const verify = (name: string) => openssl(['verify', '-no-CApath', '-CAfile', path('roots'), path(name)]);
    assert.equal(verify('planted').ok, false, 'OpenSSL does not trust the planted pair under the published bundle');
    assert.equal(verify('root').ok, false);
    assert.equal(verify('ours').ok, true, verify('ours').output);
  });
});

it('what the agent wrote proves its origin on the API server, and a restart writes nothing', async () => {
  const before = await publish();
  const after = await publish();
  for (const kind of ['ca', 'identity'] as const) {
    assert.equal(after[kind].metadata.resourceVersion, before[kind].metadata.resourceVersion);
  }
  await server.kubectl(['delete', 'secret', '-n', 'emissary', 'istio-ca', 'istio-identity']);
  const again = await publish();
  for (const kind of ['ca', 'identity'] as const) {
    const { metadata } = again[kind];
    assert.equal(metadata.annotations['meshcert.dev/uid'], metadata.uid, `${kind}: created by the agent`);
  }
});
