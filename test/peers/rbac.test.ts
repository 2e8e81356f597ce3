import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { say } from '../support/io.ts';
import { type SdsCluster, startSdsCluster } from './parts/sds-cluster.ts';
import type { KubeApiserver } from './servers/kube-apiserver.ts';
import { freePorts } from './servers/loopback.ts';

const USER = 'system:serviceaccount:emissary:meshcert';
const SECRETS = '/api/v1/namespaces/emissary/secrets';

let server: KubeApiserver;
let cluster: SdsCluster;
let documents: string;
let token: string;
let kubeconfig: string;

before(async () => {
  cluster = await startSdsCluster({ spec: '  configMapName: istio-roots\n' });
  ({ server, documents } = cluster);
  const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'meshcert', namespace: 'emissary' } };
  await server.ensure('/api/v1/namespaces/emissary/serviceaccounts', account);
  const roles = await say(['render', '--rbac', '-f', documents]);
  assert.equal(roles.code, 0, roles.stderr);
  await server.kubectl(['apply', '-f', '-'], { input: roles.stdout });
  token = await server.serviceAccountToken({
    namespace: 'emissary',
    name: 'meshcert',
    audience: 'https://kubernetes.default.svc.cluster.local',
  });
  kubeconfig = await server.kubeconfigFor('meshcert', token);
  const other = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'other', namespace: 'emissary' } };
  await server.ensure(SECRETS, other);
});

after(() => cluster?.stop());

/** The refused requests of the agent's account. */
async function refusals(): Promise<string[]> {
  const events = await server.audit();
  return events
    .filter(({ user, responseStatus }) => user.username === USER && responseStatus?.code === 403)
    .map(({ verb, requestURI }) => `${verb} ${requestURI}`);
}

test('the agent publishes under the roles that render --rbac gave, and is refused nothing', async () => {
  const { code, stderr } = await say([
    ...['agent', '--config', documents, '--once', '--timeout', '60s'],
    ...['--kubeconfig', kubeconfig, '-n', 'emissary', '--log-level', 'error'],
  ]);
  assert.equal(code, 0, stderr);
  const identity = await server.call('GET', `${SECRETS}/istio-identity`);
  assert.deepEqual(Object.keys(identity.body.data).sort(), ['ca.crt', 'tls.crt', 'tls.key']);
  const context = await server.call('GET', '/apis/getambassador.io/v3alpha1/namespaces/emissary/tlscontexts/istio');
  assert.equal(context.body.spec.secret, 'istio-identity');
  assert.equal((await server.call('GET', '/api/v1/namespaces/emissary/configmaps/istio-roots')).status, 200);
  assert.deepEqual(await refusals(), []);
});

test('as a controller with a Lease, it brings a custom resource to Ready, and is refused nothing', async () => {
  await server.kubectl(['apply', '-f', documents]);
  const stop = new AbortController();
  const { port } = await freePorts('port');
  const running = say(
    [
      ...['agent', '--observe', 'names', '-n', 'emissary', '--kubeconfig', kubeconfig],
      ...['--listen', `127.0.0.1:${port}`, '--log-level', 'error'],
    ],
    { signal: stop.signal },
  );
  try {
    await server.kubectl(['wait', '-n', 'emissary', '--for=condition=Ready', 'mcert/istio', '--timeout=60s']);
    const lease = await server.call('GET', '/apis/coordination.k8s.io/v1/namespaces/emissary/leases/meshcert');
    assert.ok(lease.body.spec.holderIdentity);
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    assert.match(metrics, /^meshcert_leader\{lease="meshcert"\} 1$/m);
    assert.match(
      metrics,
      /^meshcert_kube_requests_total\{verb="patch",resource="meshcertificates\/status",status="200"\} \d+$/m,
    );
    assert.match(metrics, /^meshcert_certificate_condition\{namespace="emissary",name="istio",type="Ready"\} 1$/m);
    assert.doesNotMatch(metrics, /^meshcert_kube_requests_total\{.*status="403"\}/m);
  } finally {
    stop.abort();
    await running;
  }
  assert.deepEqual(await refusals(), []);
});

test("with the agent's token, no other Secret can be read, listed, changed or deleted", async () => {
  const as = { token };
  assert.equal((await server.call('GET', `${SECRETS}/istio-identity`, undefined, as)).status, 200);
  const refused: [string, string][] = [
    ['GET', `${SECRETS}/other`],
    ['GET', SECRETS],
    ['GET', `${SECRETS}?watch=1&timeoutSeconds=1`],
    ['GET', '/api/v1/secrets'],
    ['GET', '/api/v1/namespaces/kube-system/secrets'],
    ['DELETE', `${SECRETS}/other`],
    ['DELETE', `${SECRETS}/istio-identity`],
    ['POST', '/api/v1/namespaces/emissary/serviceaccounts/default/token'],
    ['GET', '/apis/rbac.authorization.k8s.io/v1/namespaces/emissary/roles'],
    ['GET', '/api/v1/namespaces/emissary/pods'],
  ];
  for (const [method, path] of refused) {
    const body =
      method === 'POST' ? { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} } : undefined;
    assert.equal((await server.call(method, path, body, as)).status, 403, `${method} ${path}`);
  }
  const patch = { metadata: { labels: { stolen: 'yes' } } };
  const type = { ...as, contentType: 'application/merge-patch+json' };
  assert.equal((await server.call('PATCH', `${SECRETS}/other`, patch, type)).status, 403);
});
