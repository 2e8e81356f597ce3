import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { DrillTable, seconds } from './parts/drill-table.ts';
import { eventually } from './parts/eventually.ts';
import { askingSpec, startMeshCa } from './parts/mesh-ca.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { startTcpProxy } from './parts/tcp-proxy.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;
const namespace = 'stalled';

describe('drills on the network', () => {
  it('rotates while its watches are half open, and finds within minutes what they missed', async () => {
    const table = new DrillTable();
    await using apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { [namespace]: ['gateway'] });
    const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    await using pair = watchPair(kube, { namespace, identity: 'mesh-identity', ca: 'mesh-ca' });
    await using ca = await startMeshCa({ apiserver, namespaces: [namespace], leafLifetimeMs: 10 * MINUTE });
    await using proxy = await startTcpProxy(() => apiserver.port);
    const kubeconfig = join(apiserver.dir, 'through-proxy.kubeconfig');
    const text = await readFile(apiserver.kubeconfigFile, 'utf8');
    await writeFile(kubeconfig, text.replaceAll(`:${apiserver.port}`, `:${proxy.port}`), { mode: 0o600 });
    await using agent = await startAgentProcess({
      kubeconfig,
      documents: `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${namespace}}
spec:
  istio: ${askingSpec(ca.istio)}
  renewal: {at: 0.15, jitter: 0}
`,
      args: ['--namespace', namespace, '--no-leader-elect'],
    });
    const context = `/apis/getambassador.io/v3alpha1/namespaces/${namespace}/tlscontexts/mesh`;
    const secretOf = async () => (await apiserver.call('GET', context)).body?.spec?.secret;
    await eventually('the context', async () => (await secretOf()) === 'mesh-identity', agent.log);

    const stalled = proxy.open;
    proxy.stall();
    const since = performance.now();
    const contentType = 'application/merge-patch+json';
    await apiserver.call('PATCH', context, { spec: { secret: 'elsewhere' } }, { contentType });
    await eventually('the repair', async () => (await secretOf()) === 'mesh-identity', agent.log, MINUTE);
    const repairedMs = performance.now() - since;
    await pair
      .until(() => pair.leaves.length >= 2, 3 * MINUTE, 'a rotation over new connections')
      .catch((error) => {
        throw new Error(`${error.message}\n${agent.log()}`);
      });
    const rotatedMs = performance.now() - since;
    assert.deepEqual(pair.violations, []);
    kube.close();
    table.add(
      `${stalled} connections to the API server stalled without a close, then a foreign edit`,
      'rotations go on over new connections; PING finds the silence, and the agent what it hid, within a minute',
      `rotated after ${seconds(rotatedMs)}, repaired after ${seconds(repairedMs)}; 0 violations`,
    );
    table.print();
  });
});
