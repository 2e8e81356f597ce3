import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from '../../src/kube/client.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { startEnvoyGateway } from './parts/envoy-gateway.ts';
import { startIstioWorkload } from './parts/istio-workload.ts';
import { startLoad } from './parts/load.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { fastRotation, startIstiod } from './servers/istiod.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';

const GATEWAY_ID = 'spiffe://cluster.local/ns/emissary/sa/emissary-ingress';
const WEB = 'web.shop';
const PER_SECOND = 50;
/** The agent is down this long before a root ends, and this long after. */
const DEAD_MS = 15_000;
/** A root of `fastRotation` lives for four minutes and is renewed with its key after two. By hand: 900000. */
const durationMs = Number(process.env.MESHCERT_ROOT_ENDS_MS ?? 0);

const DOCUMENT = (address: string, serverName: string) => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: istio, namespace: emissary}
spec:
  istio:
    trustDomain: cluster.local
    ca: {address: "${address}", serverName: ${serverName}, serviceAccount: emissary-ingress, ttl: 2m}
  mappings: {selector: {matchLabels: {mesh: istio}}}
  renewal: {at: 0.17, jitter: 0.01}
  trust: {hold: 15s, retain: 2m}
`;

it('loses no request when roots of the real istiod end, with the agent killed across each end', async () => {
  await using apiserver = await startKubeApiserver();
  await prepareCluster(apiserver, { emissary: ['emissary-ingress'], shop: ['web'], 'istio-system': [] });
  await using istiod = await startIstiod({ apiserver, env: { ...fastRotation } });
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  await using workload = await startIstioWorkload({
    ...{ apiserver, istiod, namespace: 'shop', serviceAccount: 'web' },
    allow: (id) => id === GATEWAY_ID,
  });
  const place = { namespace: 'emissary', identity: 'istio-identity', ca: 'istio-ca' };
  await using pair = watchPair(kube, place);
  const { port } = workload.upstream;
  await using gateway = await startEnvoyGateway({
    kube,
    resolve: (host) => (host === WEB ? port : undefined),
    freshEvery: 5,
  });
  await apiserver.apply('/apis/getambassador.io/v3alpha1/namespaces/emissary/mappings', {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'web', namespace: 'emissary', labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: '/', service: `https://${WEB}:443` },
  });
  const startAgent = () =>
    startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: DOCUMENT(istiod.secureAddress, istiod.serverName),
      args: ['--namespace', 'emissary', '--no-leader-elect', '--log-level', 'info'],
    });
  let agent = await startAgent();
  await using _agent = { [Symbol.asyncDispose]: () => agent.stop() };

  let cluster = '';
  await gateway.until((configuration) => {
    const found = [...configuration.clusters.values()].find(({ tls }) => tls?.certificate && tls.ca);
    cluster = found?.name ?? '';
    return found !== undefined;
  });
  const load = startLoad(`${gateway.url}/`, cluster, PER_SECOND);
  const started = Date.now();
  let ends = 0;
  while (ends === 0 || Date.now() - started < durationMs) {
    const root = parseCertificates(await istiod.rootCertificate())[0];
    assert.ok(root);
    await delay(Math.max(0, root.notAfter - DEAD_MS - Date.now()));
    await agent.daemon.kill();
    await delay(Math.max(0, root.notAfter + DEAD_MS - Date.now()));
    const details = () => `the upstream: ${workload.upstream.lastFailure}\n${agent.log().slice(-8_000)}`;
    assert.deepEqual([load.failed, load.failures], [0, []], `the end of root ${++ends}: ${details()}`);
    agent = await startAgent();
  }
  await load.stop();
  console.log(
    `${Math.round((Date.now() - started) / 1000)} s at ${PER_SECOND}/s: ${load.answered} answered, ${load.failed} failed; ` +
      `${pair.leaves.length} leaves, ${new Set(pair.bundles.flat()).size} roots, the agent killed across ${ends} root ends, ` +
      `${gateway.swaps} configurations`,
  );
  assert.deepEqual([load.failed, load.failures], [0, []], agent.log());
  assert.deepEqual(pair.violations, []);
});
