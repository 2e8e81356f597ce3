import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, get as getPlain } from 'node:http';
import { createServer as createTlsServer, get as getTls } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createSecureContext, type TLSSocket } from 'node:tls';
import { ChannelCredentials, status } from '@grpc/grpc-js';
import { KUBERNETES_VERSION, type PeerName, peer } from './build.ts';
import { authority, signingRequest } from './servers/authority.ts';
import { startConsul } from './servers/consul.ts';
import { startConsulConnectProxy } from './servers/consul-connect-proxy.ts';
import { createJwtMethod, createServiceToken, login, rotateRoot, setIntention } from './servers/consul-levers.ts';
import { type Envoy, startEnvoy, validateEnvoy } from './servers/envoy.ts';
import { httpListener, mtlsCluster, plainCluster } from './servers/envoy-config.ts';
import { decode, firstAnswer } from './servers/grpc-call.ts';
import { startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { startLinkerdJudge } from './servers/linkerd-judge.ts';
import { freePorts, listening } from './servers/loopback.ts';
import { startPilotAgent } from './servers/pilot-agent.ts';
import { Daemon, output, scratchDir } from './servers/process.ts';
import { startSpire } from './servers/spire.ts';

let apiserver: KubeApiserver;
before(async () => {
  apiserver = await startKubeApiserver();
});
after(() => apiserver?.stop());

test('a program that dies is reported with its output', async () => {
  const dir = scratchDir('dies');
  const started = Daemon.start({
    name: 'echo',
    file: '/bin/sh',
    args: ['-c', 'echo no such port >&2; exit 3'],
    dir,
    ready: async () => false,
  });
  await assert.rejects(started, /echo ended with 3 before it was ready\nno such port/);
});

test('the tools report their versions', async () => {
  const versions: readonly [PeerName, string[], RegExp][] = [
    ['helm', ['version', '--short'], /^v3\.19/],
    ['spiffe-helper', ['-version'], /^0\.11\.0/],
    ['consul-template', ['-version'], /v0\.41\.1/],
  ];
  for (const [name, args, expected] of versions) assert.match(await output(await peer(name), args), expected);
});

test('kube-apiserver serves kubectl, tokens and its audit log, and survives SIGKILL', async () => {
  const [, version] = /Server Version: v(\S+)/.exec(await apiserver.kubectl(['version'])) ?? [];
  assert.equal(version, KUBERNETES_VERSION);
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'kept' }, data: { a: '1' } };
  await apiserver.kubectl(['apply', '--server-side', '-f', '-'], { input: JSON.stringify(map) });
  const token = await apiserver.serviceAccountToken({ namespace: 'default', name: 'web', audience: 'x' });
  assert.equal(token.split('.').length, 3);
  assert.equal((await apiserver.call('GET', '/api/v1/namespaces/default/secrets', undefined, { token })).status, 401);

  await apiserver.kill();
  await apiserver.restart();
  const { body } = await apiserver.call('GET', '/api/v1/namespaces/default/configmaps/kept');
  assert.equal(body.data.a, '1');
  const patches = (await apiserver.audit()).filter((e) => e.verb === 'patch' && e.objectRef?.name === 'kept');
  assert.deepEqual([patches.length, patches[0]?.userAgent?.split('/')[0]], [1, 'kubectl']);
});

test('istiod signs a leaf and can be given a new root', async () => {
  await using istiod = await startIstiod({ apiserver });
  const root = await istiod.rootCertificate();
  const token = await apiserver.serviceAccountToken({ namespace: 'default', name: 'web', audience: 'istio-ca' });
  const answer = await firstAnswer(
    {
      address: istiod.secureAddress,
      credentials: ChannelCredentials.createSsl(Buffer.from(root)),
      options: { 'grpc.ssl_target_name_override': istiod.serverName },
    },
    { file: 'istio/ca.proto', service: 'istio.v1.auth.IstioCertificateService', name: 'CreateCertificate' },
    { csr: (await signingRequest()).pem, validity_duration: '3600' },
    { authorization: `Bearer ${token}`, clusterid: 'Kubernetes' },
  );
  const leaf = new X509Certificate(answer.cert_chain[0]);
  assert.equal(leaf.subjectAltName, 'URI:spiffe://cluster.local/ns/default/sa/web');
  assert.ok(leaf.verify(new X509Certificate(root).publicKey));

  await istiod.replaceRoot();
  assert.notDeepEqual(publicKeyOf(await istiod.rootCertificate()), publicKeyOf(root));
});

test('pilot-agent serves the workload certificate over SDS', async () => {
  await using istiod = await startIstiod({ apiserver });
  await using agent = await startPilotAgent({ apiserver, istiod, serviceAccount: 'web' });
  const secret = await firstSecret(agent.socket, 'default', { id: 'sidecar~127.0.0.1~web-0.default~default.svc' });
  assert.equal(sanOf(secret), 'URI:spiffe://cluster.local/ns/default/sa/web');
});

test('SPIRE serves a registered workload over SDS', async () => {
  await using spire = await startSpire({ caTtl: '30m', svidTtl: '5m' });
  const id = await spire.createEntry('/web', { dnsNames: ['web.example.org'] });
  // The agent learns of the entry at its next sync; until then it refuses.
  let secret: Secret | undefined;
  while (!secret) {
    secret = await firstSecret(spire.socket, 'default', { id: 'test' }).catch((error) => {
      assert.ok([status.INVALID_ARGUMENT, status.PERMISSION_DENIED].includes(error.code), error);
      return undefined;
    });
  }
  assert.equal(sanOf(secret), `DNS:web.example.org, URI:${id}`);
  assert.match(await spire.cli(['localauthority', 'x509', 'prepare']), /Authority ID/);
});

test('Consul signs leaves for a logged-in service, and its proxy enforces intentions', async (t) => {
  await using consul = await startConsul();
  const { secret } = await login(consul, await createJwtMethod(consul), 'gateway');
  const leaf = await consul.api('GET', '/v1/agent/connect/ca/leaf/gateway', undefined, secret);
  assert.match(leaf.ServiceURI, /^spiffe:\/\/.*\/svc\/gateway$/);

  const target = await plainServer(t);
  const web = await createServiceToken(consul, 'web');
  await using proxy = await startConsulConnectProxy({ consul, service: 'web', target, token: web.secret });
  const call = () =>
    answerOf(getTls, {
      port: proxy.port,
      cert: leaf.CertPEM,
      key: leaf.PrivateKeyPEM,
      rejectUnauthorized: false,
    });
  await assert.rejects(call(), /alert bad certificate/);
  await setIntention(consul, 'gateway', 'web', 'allow');
  assert.equal(await call(), 'plain');

  await rotateRoot(consul);
  assert.equal((await consul.api('GET', '/v1/connect/ca/roots')).Roots.length, 2);
  const { hostname, port } = new URL(consul.httpsUrl);
  await answerOf(getTls, { hostname, port, ca: consul.ca.root, path: '/v1/status/leader' });
});

test('Envoy swaps the certificate of a cluster by CDS and refuses a broken one', async (t) => {
  const ca = await authority('test CA');
  const upstream = await mtlsServer(t, ca);
  const { ingress } = await freePorts('ingress');
  await using envoy = await startEnvoy({ listeners: [httpListener(ingress, 'up')], clusters: [] });
  await assert.rejects(answerOf(getPlain, { port: ingress }), /503/);

  for (const name of ['one', 'two']) {
    await envoy.swap([await clusterWithLeaf(envoy, ca, name, upstream)]);
    assert.equal(await answerOf(getPlain, { port: ingress }), `spiffe://test/${name}`);
  }
  const missing = { name: 'up', port: upstream, certFile: '/nowhere', keyFile: '/nowhere', caFile: '/nowhere' };
  await assert.rejects(envoy.swap([mtlsCluster(missing)]), /did not take/);
  assert.equal(await answerOf(getPlain, { port: ingress }), 'spiffe://test/two');

  await validateEnvoy([httpListener(ingress, 'up')], [plainCluster('up', upstream)]);
  await assert.rejects(validateEnvoy([], [mtlsCluster(missing)]), /nowhere/);
});

test('the Linkerd judge certifies what the token owns, by h2c and by TLS 1.3 without ALPN', async () => {
  await using judge = await startLinkerdJudge({ apiserver });
  const identity = judge.identity('default', 'web');
  const token = await apiserver.serviceAccountToken({
    namespace: 'default',
    name: 'web',
    audience: 'identity.l5d.io',
  });
  const plain = { address: judge.address, credentials: ChannelCredentials.createInsecure() };
  const context = createSecureContext({ ca: judge.roots, minVersion: 'TLSv1.3' });
  const tls = {
    address: judge.tlsAddress,
    credentials: ChannelCredentials.createFromSecureContext(context),
    options: { 'grpc.ssl_target_name_override': judge.serverName },
  };
  const certify = async (target: typeof plain, asked: string, csrName = asked, bearer = token) =>
    firstAnswer(
      target,
      { file: 'linkerd/identity.proto', service: 'io.linkerd.proxy.identity.Identity', name: 'Certify' },
      {
        identity: asked,
        token: Buffer.from(bearer),
        certificate_signing_request: (await signingRequest(csrName)).der,
      },
    );

  for (const target of [plain, tls]) {
    const answer = await certify(target, identity);
    const leaf = new X509Certificate(answer.leaf_certificate);
    assert.equal(leaf.subjectAltName, `DNS:${identity}`);
    assert.ok(leaf.verify(new X509Certificate(answer.intermediate_certificates[0]).publicKey));
  }
  const before = (await certify(plain, identity)).intermediate_certificates[0];
  await judge.replaceIssuer();
  const renewed = (await certify(plain, identity)).intermediate_certificates[0];
  assert.notDeepEqual(renewed, before);
  await judge.replaceIssuer(await (await authority('another root')).intermediate('stranger'));
  assert.deepEqual((await certify(plain, identity)).intermediate_certificates[0], renewed);

  const other = judge.identity('default', 'other');
  await assert.rejects(certify(plain, other), { code: status.FAILED_PRECONDITION });
  await assert.rejects(certify(plain, identity, other), { code: status.FAILED_PRECONDITION });
  await assert.rejects(certify(plain, ''), { code: status.INVALID_ARGUMENT });
  await assert.rejects(certify(plain, identity, identity, 'nonsense'), (error: { code: number }) =>
    [status.INVALID_ARGUMENT, status.FAILED_PRECONDITION].includes(error.code),
  );
  const { port } = new URL(`http://${judge.address}`);
  await judge.stop();
  assert.equal(await listening(Number(port)), false);
});

interface Secret {
  readonly tls_certificate: { readonly certificate_chain: { readonly inline_bytes: Buffer } };
}

async function firstSecret(socket: string, name: string, node: { id: string }): Promise<Secret> {
  const type = 'envoy.extensions.transport_sockets.tls.v3.Secret';
  const answer = await firstAnswer(
    { address: `unix:${socket}`, credentials: ChannelCredentials.createInsecure() },
    {
      file: 'envoy/sds.proto',
      service: 'envoy.service.secret.v3.SecretDiscoveryService',
      name: 'StreamSecrets',
    },
    { node, resource_names: [name], type_url: `type.googleapis.com/${type}` },
  );
  return decode('envoy/tls.proto', type, answer.resources[0].value);
}

function sanOf(secret: Secret): string | undefined {
  return new X509Certificate(secret.tls_certificate.certificate_chain.inline_bytes).subjectAltName;
}

function publicKeyOf(pem: string): Buffer {
  return new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' });
}

async function clusterWithLeaf(envoy: Envoy, ca: Awaited<ReturnType<typeof authority>>, name: string, port: number) {
  const leaf = await ca.issue({ uri: [`spiffe://test/${name}`] });
  const file = async (suffix: string, pem: string): Promise<string> => {
    const path = join(envoy.dir, `${name}.${suffix}`);
    await writeFile(path, pem);
    return path;
  };
  return mtlsCluster({
    name: 'up',
    port,
    certFile: await file('crt', leaf.chain),
    keyFile: await file('key', leaf.key),
    caFile: await file('ca', ca.root),
    maxTls: 'TLSv1_3',
  });
}

type Cleanup = { after(done: () => void): void };

async function plainServer(t: Cleanup): Promise<{ port: number }> {
  const server = createServer((_, answer) => answer.end('plain')).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port };
}

/** Answers with the URI SAN of the client. */
async function mtlsServer(t: Cleanup, ca: Awaited<ReturnType<typeof authority>>): Promise<number> {
  const { chain, key } = await ca.issue({ dns: ['up'] });
  const server = createTlsServer({ cert: chain, key, ca: ca.root, requestCert: true }, (ask, answer) => {
    const { subjectaltname = '' } = (ask.socket as TLSSocket).getPeerCertificate();
    answer.end(subjectaltname.replace('URI:', ''));
  }).listen(0, '127.0.0.1');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

function answerOf(get: typeof getTls | typeof getPlain, options: object): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = get({ host: '127.0.0.1', agent: false, ...options }, async (answer) => {
      const text = (await answer.setEncoding('utf8').toArray()).join('');
      if (answer.statusCode === 200) resolve(text);
      else reject(new Error(`${answer.statusCode} ${text}`));
    });
    sent.once('error', reject);
  });
}
