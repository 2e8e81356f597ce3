import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Istio, startIstio } from '../../sandbox/istio/istio.ts';
import { ROOT } from '../../scripts/tree.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const RESOURCES = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates';
const ROUNDS = 5;

describe('agent --once and kubectl wait, on a real API server', () => {
  let server: KubeApiserver;
  let istio: Istio;

  before(async () => {
    [server, istio] = await Promise.all([
      startKubeApiserver(),
      startIstio({ authenticate: () => ({ namespace: 'emissary', account: 'gateway' }), leafLifetimeMs: 86_400_000 }),
    ]);
    await prepareCluster(server, { emissary: ['gateway'] });
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev']);
    await server.ensure('/api/v1/namespaces/emissary/configmaps', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'istio-ca-root-cert', namespace: 'emissary' },
      data: { 'root-cert.pem': istio.rootPem },
    });
  });
  after(async () => {
    await istio?.stop();
    await server?.stop();
  });

  async function runOnce(): Promise<{ code: number; output: string }> {
    const flags = ['--once', '-n', 'emissary', '--observe', 'names', '--kubeconfig', server.kubeconfigFile];
    const main = join(ROOT, 'src/cli/main.ts');
    const child = spawn(process.execPath, ['--import', 'tsx', main, 'agent', ...flags], { cwd: ROOT });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    const [code] = await once(child, 'close');
    return { code, output };
  }

  for (let round = 1; round <= ROUNDS; round += 1) {
    it(`returns at once, run ${round} of ${ROUNDS}`, async () => {
      const name = `round-${round}`;
      await server.ensure(RESOURCES, {
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        metadata: { name, namespace: 'emissary' },
        spec: { istio: { ca: { address: istio.address, serverName: istio.serverName, serviceAccount: 'gateway' } } },
      });
      const { code, output } = await runOnce();
      assert.equal(code, 0, output);
      // Nothing of ours runs any more: what is waited for is stored, or never comes.
      for (const condition of ['Ready', 'Published', 'Trusted']) {
        const wait = ['wait', `--for=condition=${condition}`, '--timeout=1s', '-n', 'emissary', `mcert/${name}`];
        assert.match(await server.kubectl(wait), new RegExp(`meshcertificate.meshcert.dev/${name} condition met`));
      }
    });
  }
});
