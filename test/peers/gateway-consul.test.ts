import assert from 'node:assert/strict';
import { it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { startAgentInRole } from './parts/agent-in-role.ts';
import { startConsulUpstream } from './parts/consul-upstream.ts';
import { eventually } from './parts/eventually.ts';
import {
  envoyProxy,
  GATEWAYS,
  gateway,
  pod,
  policy,
  portOf,
  route,
  SHOP,
  service,
  startGatewayLab,
  useProxy,
} from './parts/gateway-lab.ts';
import { selected, shortConnections } from './parts/gateway-traffic.ts';
import { startLoad } from './parts/load.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { startConsul } from './servers/consul.ts';
import { createKubernetesMethod, rotateRoot } from './servers/consul-levers.ts';

const MINUTE = 60_000;
const METHOD = 'consul-k8s-auth-method';
const AUDIENCE = 'https://kubernetes.default.svc.cluster.local';

it('Envoy Gateway carries every request to a Connect proxy through two rotations of the root of Consul', async () => {
  await using lab = await startGatewayLab();
  const { apiserver, envoyGateway } = lab;
  await prepareCluster(apiserver, { [GATEWAYS]: ['gateway'], consul: ['consul-auth-method'] });
  await using consul = await startConsul();
  await createKubernetesMethod(consul, apiserver, { name: METHOD, audience: AUDIENCE });
  await using upstream = await startConsulUpstream(consul, 'gateway');
  await envoyGateway.expose(upstream.port);
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  await using pair = watchPair(kube, { namespace: GATEWAYS, identity: 'consul-identity', ca: 'consul-ca' });
  const at = selected(gateway('consul', useProxy('consul')), 'consul');
  const behind = pod('web-1', 'web');
  const [front, ...slices] = service('web', upstream, behind);
  assert.ok(front);
  await lab.apply(
    envoyProxy('consul', {}),
    at,
    shortConnections('consul'),
    behind,
    selected(front, 'consul'),
    ...slices,
  );
  const labels = 'selector: {matchLabels: {mesh: consul}}';
  await using agent = await startAgentInRole(apiserver, {
    namespace: GATEWAYS,
    args: ['--allow-audience', AUDIENCE],
    documents: `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: consul, namespace: ${GATEWAYS}}
spec:
  consul:
    service: gateway
    datacenter: dc1
    grpc:
      addresses: ["${consul.grpcTlsAddress}"]
      tls: {ca: {file: ${consul.caFile}}, serverName: ${consul.serverName}}
    auth: {login: {method: ${METHOD}, serviceAccount: gateway, audience: "${AUDIENCE}"}}
  gatewayApi:
    gateways: {${labels}}
    services: {${labels}, namespaces: [${SHOP}]}
  trust: {hold: 10s}
`,
  });
  const ours = policy('consul-web-https');
  await eventually('the policy', async () => (await lab.read(ours)).spec !== undefined, agent.log);
  const { validation } = (await lab.read(ours)).spec as { validation: { subjectAltNames: readonly { uri: string }[] } };
  assert.deepEqual(
    validation.subjectAltNames.map(({ uri }) => uri.replace(/^spiffe:\/\/[^/]+/, '')),
    ['/ns/default/dc/dc1/svc/web'],
  );
  await lab.apply(route('web', [at]));
  const url = `http://127.0.0.1:${await envoyGateway.port(portOf(at))}/web`;
  await eventually(
    'an answer',
    async () => (await fetch(url)).status === 200,
    () => agent.log() + envoyGateway.log(),
  );

  const load = startLoad(url, '', 25);
  try {
    for (const rotations of [1, 2]) {
      await rotateRoot(consul);
      await pair.until(() => pair.leaves.length > rotations, 2 * MINUTE, `the leaf of rotation ${rotations}`);
    }
    await eventually('a bundle of three roots', async () => pair.bundles.at(-1)?.length === 3, agent.log);
  } finally {
    await load.stop();
  }
  console.log(`${load.answered} answered, ${load.failed} failed, ${pair.leaves.length} leaves, 2 roots`);
  assert.deepEqual([load.failures, pair.violations, await agent.refusals()], [[], [], []], agent.log());
  assert.ok(load.answered > 0);
});
