import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { type EnvoyGateway, startEnvoyGateway } from './parts/envoy-gateway.ts';
import { startIstioWorkload } from './parts/istio-workload.ts';
import { startLoad } from './parts/load.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { fastRotation, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { startPilotAgent } from './servers/pilot-agent.ts';

const MINUTE = 60_000;
const GATEWAY_ID = 'spiffe://cluster.local/ns/emissary/sa/emissary-ingress';
const web = 'web.shop';

describe('Istio on real parts: istiod, pilot-agent, kube-apiserver, Envoy', () => {
  let apiserver: KubeApiserver;
  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { emissary: ['emissary-ingress'], shop: ['web'], 'istio-system': [] });
  });
  after(() => apiserver.stop());

  it('rotates leaf and root with a TokenRequest token, and Envoy carries every request through', async () => {
    await using istiod = await startIstiod({ apiserver, env: { ...fastRotation } });
    const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    await using workload = await startIstioWorkload({
      apiserver,
      istiod,
      namespace: 'shop',
      serviceAccount: 'web',
      allow: (id) => id === GATEWAY_ID,
    });
    await using pair = watchPair(kube, { namespace: 'emissary', identity: 'istio-identity', ca: 'istio-ca' });
    const { port } = workload.upstream;
    await using gateway = await startEnvoyGateway({ kube, resolve: (host) => (host === web ? port : undefined) });
    await apiserver.apply('/apis/getambassador.io/v3alpha1/namespaces/emissary/mappings', mapping());
    await using agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: document(
        `ca: {address: "${istiod.secureAddress}", serverName: ${istiod.serverName}, serviceAccount: emissary-ingress, ttl: 1m}`,
      ),
      args: ['--namespace', 'emissary'],
    });
    const cluster = await ready(gateway, agent);
    const load = startLoad(`${gateway.url}/`, cluster, 25);
    await pair.until(() => pair.leaves.length >= 4, 4 * MINUTE, 'the third rotation');
    await istiod.replaceRoot();
    await workload.renew();
    await pair.until(
      () => pair.bundles.some((bundle) => bundle.length === 2),
      2 * MINUTE,
      'a bundle of old and new root',
    );
    const rootOfLeaf = () => pair.leaves.at(-1)?.authorityKeyId;
    const before = rootOfLeaf();
    await pair.until(() => rootOfLeaf() !== before, 3 * MINUTE, 'a leaf under the new root');
    await load.stop();
    assert.deepEqual(pair.violations, []);
    assert.deepEqual([load.failed, load.failures], [0, []], agent.log());
    assert.ok(load.answered > 500);
    assert.ok(workload.upstream.peers.size >= 3, 'the upstream saw several of our certificates');
    kube.close();
  });

  it('follows the socket of a real pilot-agent through three rotations', async () => {
    await using istiod = await startIstiod({ apiserver });
    // The root that the first test left ends within minutes; leaves that it shortens gain nothing and are not
    // published.
    await istiod.replaceRoot();
    await using pilot = await startPilotAgent({
      apiserver,
      istiod,
      namespace: 'emissary',
      serviceAccount: 'emissary-ingress',
      env: { SECRET_TTL: '60s' },
    });
    const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    await using pair = watchPair(kube, { namespace: 'emissary', identity: 'sds-identity', ca: 'sds-ca' });
    await using agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: document(`sds: {socket: ${pilot.socket}}`, 'sds'),
      args: ['--namespace', 'emissary'],
    });
    await pair
      .until(() => pair.leaves.length >= 4, 4 * MINUTE, 'the third rotation')
      .catch((error) => {
        throw new Error(`${error.message}\n${agent.log()}`);
      });
    assert.deepEqual(pair.violations, []);
    assert.deepEqual(pair.leaves.at(-1)?.names.uris, [GATEWAY_ID]);
    kube.close();
  });
});

function document(mesh: string, name = 'istio'): string {
  return `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: ${name}, namespace: emissary}
spec:
  istio:
    trustDomain: cluster.local
    ${mesh}
  mappings: {selector: {matchLabels: {mesh: ${name}}}}
  trust: {hold: 15s, retain: 2m}
`;
}

function mapping() {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'web', namespace: 'emissary', labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: '/', service: `https://${web}:443` },
  };
}

/** Resolves with the name of the cluster once Envoy originates mTLS for the Mapping. */
async function ready(gateway: EnvoyGateway, agent: AgentProcess): Promise<string> {
  let name = '';
  const armed = gateway.until((configuration) => {
    const found = [...configuration.clusters.values()].find(({ tls }) => tls?.certificate && tls.ca);
    name = found?.name ?? '';
    return found !== undefined;
  });
  await armed.catch((error) => {
    throw new Error(`${error.message}\n${agent.log()}`);
  });
  return name;
}
