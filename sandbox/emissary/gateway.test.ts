import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { secretFileName } from '../../src/gateway/emissary/reading.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { refOf } from '../../src/objects/objects.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { type KubeApi, startKubeApi } from '../kube/kube-api.ts';
import { SandboxCa } from '../tls/ca.ts';
import { type SandboxUpstream, startUpstream } from '../tls/upstream.ts';
import { type RunningGateway, startGateway } from './gateway.ts';

const HOUR = 3_600_000;
const GATEWAY = 'spiffe://cluster.local/ns/emissary/sa/emissary';
const base64 = (text: string) => Buffer.from(text).toString('base64');

let api: KubeApi;
let kube: Kube;
let ca: SandboxCa;
let upstream: SandboxUpstream;
let gateway: RunningGateway;
let serverIdentity: Identity;

beforeEach(async () => {
  api = await startKubeApi({ namespaces: ['emissary', 'shop'], tls: false });
  kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
  ca = SandboxCa.root({ name: 'mesh' });
  serverIdentity = ca.identity({ uris: ['spiffe://cluster.local/ns/shop/sa/web'], lifetimeMs: HOUR });
  upstream = await startUpstream({ identity: () => serverIdentity, trust: () => [ca.certificate], plaintext: true });
});

afterEach(async () => {
  await gateway?.stop();
  kube.close();
  await upstream.stop();
  await api.stop();
});

async function start(): Promise<void> {
  gateway = await startGateway({
    kube,
    // Long enough for two consecutive writes to be one batch.
    env: { batchMs: 50 },
    resolve: () => ({ host: '127.0.0.1', port: upstream.port }),
  });
}

const client = () => ca.identity({ uris: [GATEWAY], lifetimeMs: HOUR });

function identitySecret(
  { key, chain }: Pick<Identity, 'key' | 'chain'>,
  name = 'id',
  more: Record<string, string> = {},
) {
  const data = { 'tls.crt': base64(formatCertificates(chain)), 'tls.key': base64(key.toPem()), ...more };
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'kubernetes.io/tls',
    metadata: { name, namespace: 'emissary' },
    data,
  };
}

function caSecret(from: SandboxCa = ca, key = 'tls.crt') {
  const data = { [key]: base64(from.certificate.pem) };
  return { apiVersion: 'v1', kind: 'Secret', type: 'Opaque', metadata: { name: 'ca', namespace: 'emissary' }, data };
}

function context(spec: object = {}) {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'TLSContext',
    metadata: { name: 'mesh', namespace: 'emissary' },
    spec: { hosts: [], secret: 'id', ca_secret: 'ca', ...spec },
  };
}

function mapping(name = 'web', spec: object = {}) {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name, namespace: 'emissary' },
    spec: { hostname: '*', prefix: `/${name}/`, service: `https://${name}.shop`, tls: 'mesh', ...spec },
  };
}

async function get(path = '/web/'): Promise<{ status: number; body: string }> {
  const response = await fetch(gateway.url + path);
  return { status: response.status, body: await response.text() };
}

const loads =
  ({ chain }: Identity) =>
  (at: RunningGateway) =>
    [...at.configuration.clusters.values()].some(({ tls }) => tls?.certificate?.pem === formatCertificates(chain));

const put = (...objects: object[]) => {
  for (const object of objects) api.put(object);
};

test('requests reach the upstream with the identity that the context names', async () => {
  put(caSecret(), identitySecret(client()), context(), mapping());
  await start();
  const { status, body } = await get('/web/a/b?c=d');
  assert.equal(status, 200);
  assert.deepEqual(JSON.parse(body), { peer: GATEWAY, path: '/a/b?c=d' });
});

test('neither the gateway nor an upstream ends idle connections after seconds, as Envoy does not for an hour', async () => {
  put(caSecret(), identitySecret(client()), context(), mapping());
  await start();
  for (const url of [`${gateway.url}/web/`, `http://127.0.0.1:${upstream.port}/`]) {
    const response = await fetch(url);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('keep-alive'), null, url);
  }
});

test('a rotated Secret is used for new connections, and no request fails', async () => {
  const [before, after] = [client(), client()];
  put(caSecret(), identitySecret(before), context(), mapping());
  await start();
  assert.equal((await get()).status, 200);
  put(identitySecret(after));
  await gateway.until(loads(after));
  assert.equal((await get()).status, 200);
  assert.deepEqual(
    [...upstream.peers.keys()],
    [before, after].map(({ chain }) => chain[0]?.fingerprint),
  );
  assert.equal(gateway.counts.failed, 0);
});

test('without the Secret, a service without a scheme is called in plaintext', async () => {
  put(context(), mapping('web', { service: 'web.shop' }));
  await start();
  const { body } = await get();
  assert.equal(JSON.parse(body).peer, null);
  assert.equal(upstream.counts.plaintext, 1);
});

test('without the Secret, an https service gets a handshake without a certificate, which the mesh refuses', async () => {
  put(context(), mapping());
  await start();
  assert.equal((await get()).status, 503);
  assert.equal(upstream.counts.plaintext, 0);
});

test('a CA Secret that has only ca.crt has no effect', async () => {
  put(caSecret(ca, 'ca.crt'), identitySecret(client()), context(), mapping('web', { service: 'web.shop' }));
  await start();
  await get();
  assert.equal(upstream.counts.plaintext, 1);
});

test('a root changed beside an unchanged pair goes unnoticed; in its own Secret it is noticed', async () => {
  const other = SandboxCa.root({ name: 'other' });
  const identity = client();
  put(identitySecret(identity, 'id', { 'root-cert.pem': base64(other.certificate.pem) }));
  put({ ...context(), spec: { hosts: [], secret: 'id' } }, mapping());
  await start();
  assert.equal((await get()).status, 503);
  put(identitySecret(identity, 'id', { 'root-cert.pem': base64(ca.certificate.pem) }));
  await gateway.until(({ counts }) => counts.complete === 2);
  assert.equal((await get()).status, 503);

  put(caSecret(), context());
  await gateway.until(({ counts }) => counts.complete === 3);
  assert.equal((await get()).status, 200);
});

test('a Mapping changed in the same batch keeps the other Mappings on the old certificate', async () => {
  const [before, after] = [client(), client()];
  put(caSecret(), identitySecret(before), context(), mapping('web'), mapping('orders'));
  await start();
  put(identitySecret(after), mapping('orders', { timeout_ms: 5000 }));
  await gateway.until(({ counts }) => counts.incremental === 1);
  await get('/web/');
  await get('/orders/');
  assert.deepEqual(
    [...upstream.peers.keys()],
    [before, after].map(({ chain }) => chain[0]?.fingerprint),
  );

  put(context({ alpn_protocols: 'http/1.1' }));
  await gateway.until(({ counts }) => counts.complete === 2);
  await get('/web/');
  assert.equal(upstream.peers.get(after.chain[0]?.fingerprint ?? ''), 2);
});

test('a key that does not match the certificate freezes everything, other upstreams too', async () => {
  const good = client();
  put(caSecret(), identitySecret(good), context(), mapping());
  await start();
  put(identitySecret({ key: PrivateKey.generate(), chain: client().chain }));
  await gateway.until(({ counts }) => counts.refused === 1);
  assert.match(gateway.refusal ?? '', /key values mismatch/);
  put(mapping('later'));
  await gateway.until(({ counts }) => counts.refused === 2);
  assert.equal((await get('/later/')).status, 404);
  assert.equal((await get('/web/')).status, 200);
});

test('two contexts on one https service share its cluster, and the first one wins', async () => {
  const [one, two] = [client(), client()];
  put(caSecret(), identitySecret(one), identitySecret(two, 'id-two'), context());
  put({ ...context({ secret: 'id-two' }), metadata: { name: 'two', namespace: 'emissary' } });
  put(mapping('a', { service: 'https://web.shop' }), mapping('b', { service: 'https://web.shop', tls: 'two' }));
  await start();
  await get('/a/');
  await get('/b/');
  assert.deepEqual([...upstream.peers], [[one.chain[0]?.fingerprint, 2]]);
});

test('any workload of the mesh is accepted as the upstream, since no name is compared', async () => {
  serverIdentity = ca.identity({ uris: ['spiffe://cluster.local/ns/evil/sa/evil'], lifetimeMs: HOUR });
  put(caSecret(), identitySecret(client()), context(), mapping());
  await start();
  assert.equal((await get()).status, 200);
});

test('an upstream of another mesh is refused', async () => {
  serverIdentity = SandboxCa.root({ name: 'other' }).identity({ uris: ['spiffe://other/web'], lifetimeMs: HOUR });
  put(caSecret(), identitySecret(client()), context(), mapping());
  await start();
  assert.equal((await get()).status, 503);
  assert.match(gateway.lastFailure ?? '', /self-signed certificate in certificate chain|unable to/);
});

test('diagnostics name the files by the pair, and show what is wrong', async () => {
  const secret = identitySecret(client());
  put(caSecret(), secret, context(), mapping());
  put({ ...context({ secret: 'nowhere' }), metadata: { name: 'broken', namespace: 'emissary' } });
  await start();
  const response = await fetch(`${gateway.diagnosticsUrl}/ambassador/v0/diag/?json=true`);
  const body = (await response.json()) as {
    errors: [string, string][];
    tlscontexts: { name: string; secret_info: Record<string, string> }[];
  };
  const file = body.tlscontexts.find(({ name }) => name === 'mesh')?.secret_info.cert_chain_file ?? '';
  assert.ok(file.endsWith(`/emissary/secrets-decoded/id/${secretFileName(secret.data)}.crt`), file);
  assert.match(body.errors.flat().join(), /broken: found no certificate in nowhere/);
});

test('the admin interface shows the loaded certificates', async () => {
  const identity = client();
  put(caSecret(), identitySecret(identity), context(), mapping());
  await start();
  const response = await fetch(`${gateway.adminUrl}/certs`);
  const body = (await response.json()) as { certificates: { cert_chain: { serial_number: string }[] }[] };
  assert.equal(body.certificates[0]?.cert_chain[0]?.serial_number, identity.chain[0]?.serial.toLowerCase());
});

test('a deleted Secret is a downgrade too', async () => {
  const secret = identitySecret(client());
  put(caSecret(), secret, context(), mapping('web', { service: 'web.shop' }));
  await start();
  assert.equal(JSON.parse((await get()).body).peer, GATEWAY);
  await kube.delete(refOf(secret), {});
  await gateway.until(({ counts }) => counts.complete === 2);
  assert.equal(JSON.parse((await get()).body).peer, null);
});
