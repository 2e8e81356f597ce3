import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { startIstiod, TRUST_BUNDLE } from './servers/istiod.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;

describe('Istio whose root is a ClusterTrustBundle', () => {
  it('is joined by the file that the kubelet makes of it, and writes no ConfigMap', async () => {
    await using apiserver = await startKubeApiserver({
      args: ['--feature-gates=ClusterTrustBundle=true', '--runtime-config=certificates.k8s.io/v1beta1=true'],
    });
    await prepareCluster(apiserver, { emissary: ['gateway'], 'istio-system': [] });
    await using istiod = await startIstiod({ apiserver, env: { ENABLE_CLUSTER_TRUST_BUNDLE_API: 'true' } });
    const path = '/api/v1/namespaces/emissary/configmaps/istio-ca-root-cert';
    assert.equal((await apiserver.call('GET', path)).status, 404);
    const { body } = await apiserver.call('GET', TRUST_BUNDLE);
    assert.equal(body?.spec?.signerName, 'istio.io/istiod-ca');

    // What a kubelet writes for a projected clusterTrustBundle.
    const file = join(istiod.dir, 'root-cert.pem');
    await writeFile(file, String(body?.spec?.trustBundle));
    const { secureAddress: address, serverName } = istiod;
    const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    try {
      await using pair = watchPair(kube, { namespace: 'emissary', identity: 'mesh-identity', ca: 'mesh-ca' });
      await using agent = await startAgentProcess({
        kubeconfig: apiserver.kubeconfigFile,
        documents: document({ address, serverName, serviceAccount: 'gateway', root: { file } }),
        args: ['--namespace', 'emissary', '--no-leader-elect'],
      });
      await pair
        .until(() => pair.leaves.length === 1, MINUTE, 'the leaf')
        .catch((error) => {
          throw new Error(`${error.message}\n${agent.log()}`);
        });
      assert.deepEqual(pair.violations, []);
    } finally {
      kube.close();
    }
  });
});

const document = (ca: object): string => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: emissary}
spec:
  istio: {ca: ${JSON.stringify(ca)}}
`;
