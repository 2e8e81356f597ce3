import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { startConsulUpstream } from './parts/consul-upstream.ts';
import { type EnvoyGateway, startEnvoyGateway } from './parts/envoy-gateway.ts';
import { startLoad } from './parts/load.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Consul, startConsul } from './servers/consul.ts';
import { createKubernetesMethod, createServiceToken, rotateRoot } from './servers/consul-levers.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;
const METHOD = 'consul-k8s-auth-method';
/** Audience of the API server, which reviews the tokens for auth methods of type kubernetes. */
const AUDIENCE = 'https://kubernetes.default.svc.cluster.local';
const web = 'web.shop';

describe('Consul on real parts: Consul, kube-apiserver, Envoy, Connect proxy', () => {
  let apiserver: KubeApiserver;
  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { ambassador: ['ambassador'], consul: ['consul-auth-method'] });
  });
  after(() => apiserver.stop());

  it('logs in with a ServiceAccount token, and Envoy carries every request through two rotations of the root', async () => {
    await using consul = await startConsul();
    await createKubernetesMethod(consul, apiserver, { name: METHOD, audience: AUDIENCE });
    await using upstream = await startConsulUpstream(consul, 'ambassador');
    const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    await using _kube = stopping(() => kube.close());
    await using pair = watchPair(kube, { namespace: 'ambassador', identity: 'consul-identity', ca: 'consul-ca' });
    await using gateway = await startEnvoyGateway({
      kube,
      resolve: (host) => (host === web ? upstream.port : undefined),
    });
    await apiserver.apply('/apis/getambassador.io/v3alpha1/namespaces/ambassador/mappings', mapping('web', 'consul'));
    await using agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: document(consul),
      args: ['--namespace', 'ambassador', '--allow-audience', AUDIENCE],
    });
    const cluster = await verified(gateway, agent);
    const load = startLoad(`${gateway.url}/`, cluster, 25);
    await using _load = stopping(() => load.stop());
    for (const rotations of [1, 2]) {
      await rotateRoot(consul);
      await pair
        .until(() => pair.leaves.length > rotations, 2 * MINUTE, `the leaf of rotation ${rotations}`)
        .catch((error) => {
          throw new Error(`${error.message}\n${agent.log()}`);
        });
    }
    await load.stop();
    assert.deepEqual(pair.violations, []);
    assert.deepEqual([load.failed, load.failures], [0, []], agent.log());
    assert.equal(pair.bundles.at(-1)?.length, 3);
    await apiserver.kubectl(['delete', '-n', 'ambassador', 'mapping/web', 'tlscontext/consul']);
    assert.match(pair.leaves.at(-1)?.names.uris[0] ?? '', /\/ns\/default\/dc\/dc1\/svc\/ambassador$/);
  });

  it("takes over from Ambassador's connector without a lost request, once it is allowed to", async () => {
    await using consul = await startConsul();
    await using upstream = await startConsulUpstream(consul, 'ambassador');
    const token = (await createServiceToken(consul, 'ambassador')).secret;
    await leaveAsConnector(apiserver, consul, token);
    const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    await using _kube = stopping(() => kube.close());
    await using gateway = await startEnvoyGateway({
      kube,
      resolve: (host) => (host === web ? upstream.port : undefined),
    });
    await apiserver.apply(
      '/apis/getambassador.io/v3alpha1/namespaces/ambassador/mappings',
      mapping('web', 'connector', 'ambassador-consul'),
    );
    let cluster = '';
    await gateway.until(({ clusters }) => {
      cluster = [...clusters.values()].find(({ tls }) => tls?.certificate)?.name ?? '';
      return cluster !== '';
    });
    const load = startLoad(`${gateway.url}/`, cluster, 25);
    await using _load = stopping(() => load.stop());
    const url = new URL(consul.url);
    await using agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      args: ['--consul-connector', '--namespace', 'ambassador'],
      env: { _CONSUL_HOST: url.hostname, _CONSUL_PORT: url.port, CONSUL_HTTP_TOKEN: token },
    });
    const before = await standing(apiserver);
    await until(async () => (await agent.statuses())[0]?.status.lastError?.code === 'ERR_PLAN_FOREIGN', agent);
    assert.deepEqual(await standing(apiserver), before);

    for (const object of ['secret/ambassador-consul-connect', 'tlscontext/ambassador-consul']) {
      const label = 'meshcert.dev/owner=ambassador.ambassador-consul';
      await apiserver.kubectl(['label', '-n', 'ambassador', object, label, '--field-manager=meshcert']);
    }
    const annotation = 'kubectl.kubernetes.io/last-applied-configuration-';
    await apiserver.kubectl(['annotate', '-n', 'ambassador', 'secret', 'ambassador-consul-connect', annotation]);
    assert.equal(await verified(gateway, agent), cluster);
    const { secret, context } = await standing(apiserver);
    assert.equal(context.spec.ca_secret, 'ambassador-consul-ca');
    assert.equal(context.spec.secret, 'ambassador-consul-connect');
    assert.ok(secret.data['ca.crt']);
    assert.doesNotMatch(JSON.stringify(secret.metadata.annotations ?? {}), /tls\.key/);
    await load.stop();
    assert.deepEqual([load.failed, load.failures], [0, []], agent.log());
    assert.ok(load.answered > 0);
    assert.ok(!agent.log().includes(token), 'the token is in no log line');
  });
});

/** The Secret and the TLSContext that the connector and its manifest leave behind. */
async function leaveAsConnector(apiserver: KubeApiserver, consul: Consul, token: string): Promise<void> {
  const leaf = await consul.api('GET', '/v1/agent/connect/ca/leaf/ambassador', undefined, token);
  const { Roots } = await consul.api('GET', '/v1/agent/connect/ca/roots');
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const objects = [
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'ambassador-consul-connect' },
      type: 'kubernetes.io/tls',
      data: { 'tls.crt': base64(leaf.CertPEM + Roots[0].RootCert), 'tls.key': base64(leaf.PrivateKeyPEM) },
    },
    {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'TLSContext',
      metadata: { name: 'ambassador-consul' },
      spec: { hosts: [], secret: 'ambassador-consul-connect' },
    },
  ];
  for (const object of objects) {
    await apiserver.kubectl(['apply', '-n', 'ambassador', '-f', '-'], { input: JSON.stringify(object) });
  }
}

async function standing(apiserver: KubeApiserver) {
  const json = async (object: string) =>
    JSON.parse(await apiserver.kubectl(['get', '-n', 'ambassador', object, '-o', 'json']));
  return {
    secret: await json('secret/ambassador-consul-connect'),
    context: await json('tlscontext/ambassador-consul'),
  };
}

function document(consul: Consul): string {
  return `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: consul, namespace: ambassador}
spec:
  consul:
    service: ambassador
    datacenter: dc1
    grpc:
      addresses: ["${consul.grpcTlsAddress}"]
      tls: {ca: {file: ${consul.caFile}}, serverName: ${consul.serverName}}
    auth: {login: {method: ${METHOD}, serviceAccount: ambassador, audience: "${AUDIENCE}"}}
  mappings: {selector: {matchLabels: {mesh: consul}}}
  # A second rotation within the hold of the first is held: its bridge leads to a root that is new itself.
  trust: {hold: 10s}
`;
}

function mapping(name: string, mesh: string, tls?: string) {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name, namespace: 'ambassador', labels: { mesh } },
    spec: { hostname: '*', prefix: '/', service: tls ? `${web}:443` : `https://${web}:443`, ...(tls ? { tls } : {}) },
  };
}

/** Resolves with the name of the cluster once Envoy presents our certificate and verifies theirs. */
async function verified(gateway: EnvoyGateway, agent: AgentProcess): Promise<string> {
  let name = '';
  await gateway
    .until(({ clusters }) => {
      const found = [...clusters.values()].find(({ tls }) => tls?.certificate && tls.ca);
      name = found?.name ?? '';
      return found !== undefined;
    })
    .catch((error) => {
      throw new Error(`${error.message}\n${agent.log()}`);
    });
  return name;
}

const stopping = (stop: () => unknown): AsyncDisposable => ({
  async [Symbol.asyncDispose]() {
    await stop();
  },
});

async function until(holds: () => Promise<boolean>, agent: AgentProcess): Promise<void> {
  for (const deadline = Date.now() + MINUTE; !(await holds()); ) {
    if (Date.now() > deadline) throw new Error(`it did not come to that\n${agent.log()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
