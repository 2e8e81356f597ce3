import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { startLoad } from '../peers/parts/load.ts';
import { watchPair } from '../peers/parts/pair-watch.ts';
import { discard, scratchDir } from '../peers/servers/process.ts';
import { type Cluster, noCluster, startCluster } from './cluster.ts';
import { GATEWAY, GATEWAY_ID, type GatewayPod, installGateway, prepareGateway } from './mesh/gateway.ts';
import { installIstiod, installWorkload } from './mesh/istio.ts';
import { told } from './mesh/objects.ts';
import { blocksOf, openShell, packChart, type Shell } from './session.ts';

const skip = noCluster();
const MINUTE = 60_000;

let cluster: Cluster;
let gateway: GatewayPod;
let shell: Shell;
let chart: string;

before(async () => {
  if (skip) return;
  cluster = await startCluster({ images: ['meshcert', 'istiod', 'proxy', 'envoy'] });
  const dir = scratchDir('readme');
  [shell, chart] = await Promise.all([openShell(cluster, dir), packChart(dir)]);
  await prepareGateway(cluster);
  await installIstiod(cluster);
  await installWorkload(cluster, { name: 'web', namespace: 'shop', port: 80, client: GATEWAY_ID });
  gateway = await installGateway(cluster);
});

after(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
  if (shell) discard(shell.dir);
});

test("the README's installation, word for word, from the packed chart", { skip }, async (t) => {
  const blocks = await blocksOf('README.md', '## Install it on a cluster');
  assert.deepEqual(
    blocks.map(({ language }) => language),
    ['yaml', 'sh', 'yaml', 'sh'],
  );
  const [values, install, mapping, check] = blocks.map(({ text }) => text);
  const run = async (script = '') => {
    const said = await shell.run(script.replaceAll('deploy/helm/meshcert', chart)).catch(async (error) => {
      throw new Error(`${error.message}\n${await told(cluster, GATEWAY.namespace)}`);
    });
    t.diagnostic(`$ ${script.trim()}\n${said}`);
    return said;
  };
  await writeFile(join(shell.dir, 'mesh-values.yaml'), values ?? '');
  assert.match(await run(install), /condition met/);
  await run(`kubectl apply -f - <<'END'\n${mapping}END`);
  const checked = await run(check);
  assert.match(checked, /Phase: +Succeeded/);
  assert.match(checked, /^istio +True/m);
  await run('kubectl wait --for=jsonpath={.spec.tls}=istio mapping/web -n emissary --timeout=30s');
  await run('kubectl get pods,secrets,tlscontexts,mappings -n emissary');
});

test('50 requests a second from gateway to workload through rotations of leaf and root: none fails', {
  skip,
}, async (t) => {
  const kube = connect({ kubeconfig: cluster.kubeconfigFile, userAgent: 'watcher' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  const envoyCluster = await gateway.ready('web.shop');
  await using pair = watchPair(kube, { namespace: GATEWAY.namespace, identity: 'istio-identity', ca: 'istio-ca' });
  const load = startLoad(gateway.url, envoyCluster, 50);
  const roots = () => new Set(pair.bundles.flat()).size;
  try {
    await pair.until(() => pair.leaves.length >= 5 && roots() >= 3, 12 * MINUTE, '5 leaves and 3 roots');
  } finally {
    await load.stop();
  }
  t.diagnostic(
    `${load.answered} answered, ${load.failed} failed; ${pair.leaves.length} leaves, ${roots()} roots, ` +
      `${gateway.configurer.swaps} configurations of the gateway`,
  );
  assert.deepEqual(load.failures, []);
  assert.equal(load.failed, 0);
  assert.deepEqual(pair.violations, []);
});

test('the workload refuses a client without the identity of the gateway', { skip }, async () => {
  const said = await shell.run(
    `kubectl run -n shop stranger --image=${(await import('./images.ts')).imageName('meshcert')} --restart=Never \\
       --command -- /usr/bin/node -e 'require("tls").connect(80, "web.shop", { rejectUnauthorized: false })
         .on("error", (e) => console.log("refused:", e.code)).on("secureConnect", function () { this.write("GET / HTTP/1.1\\r\\nhost: web\\r\\n\\r\\n") })
         .on("data", (d) => console.log("answered:", String(d)))' &&
     kubectl wait -n shop --for=jsonpath={.status.phase}=Succeeded pod/stranger --timeout=60s >/dev/null && kubectl logs -n shop stranger`,
  );
  assert.match(said, /refused: \w+/);
  assert.doesNotMatch(said, /answered/);
});
