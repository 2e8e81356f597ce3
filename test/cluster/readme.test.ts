import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { startLoad } from '../peers/parts/load.ts';
import { watchPair } from '../peers/parts/pair-watch.ts';
import { noCluster } from './cluster.ts';
import { imageName } from './images.ts';
import { GATEWAY } from './mesh/gateway.ts';
import { eventsAndLogs } from './mesh/objects.ts';
import { blocksOf } from './session.ts';
import { startWorld, type World } from './world.ts';

const skip = noCluster();
const MINUTE = 60_000;

let world: World;

before(async () => {
  if (!skip) world = await startWorld();
});
after(() => world?.[Symbol.asyncDispose]());

test("the README's installation, word for word, from the packed chart", { skip }, async (t) => {
  const { cluster, shell, chart } = world;
  const blocks = await blocksOf('README.md', '### With Helm');
  assert.deepEqual(
    blocks.map(({ language }) => language),
    ['yaml', 'sh', 'yaml', 'sh'],
  );
  const [values, install, mapping, check] = blocks.map(({ text }) => text);
  const run = async (script = '') => {
    const said = await shell.run(script.replace(/oci:\S+ --version \S+/, chart)).catch(async (error) => {
      throw new Error(`${error.message}\n${await eventsAndLogs(cluster, GATEWAY.namespace)}`);
    });
    t.diagnostic(`$ ${script.trim()}\n${said}`);
    return said;
  };
  await writeFile(join(shell.dir, 'mesh-values.yaml'), values ?? '');
  assert.match(await run(install), /condition met/);
  await run(`kubectl apply -f - <<'END'\n${mapping}END`);
  const checked = await run(check);
  assert.match(checked, /Phase: +Succeeded/);
  assert.match(checked, /^istio +istio .* True /m);
  await run('kubectl wait --for=jsonpath={.spec.tls}=istio mapping/web -n emissary --timeout=30s');
  await run('kubectl get pods,secrets,tlscontexts,mappings -n emissary');
});

test('50 requests a second from gateway to workload through rotations of leaf and root: none fails', {
  skip,
}, async (t) => {
  const { cluster, gateway } = world;
  const kube = connect({ kubeconfig: cluster.kubeconfigFile, userAgent: 'watcher' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  const envoyCluster = await gateway.ready('web.shop');
  await using pair = watchPair(kube, { namespace: GATEWAY.namespace, identity: 'istio-identity', ca: 'istio-ca' });
  const load = startLoad(gateway.url, envoyCluster, 50);
  const trouble = async () => {
    const stats = await gateway.stats(`^cluster\\..*(connect|cx_|rq_|ssl|health).*`);
    const seen = Object.entries(stats).filter(([, count]) => count > 0);
    return `${JSON.stringify(seen)}\n${await eventsAndLogs(cluster, 'shop')}`;
  };
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
  assert.equal(load.failed, 0, `${load.failures.join('\n')}\n${await trouble()}`);
  assert.deepEqual(pair.violations, []);
});

test('the workload refuses a client without the identity of the gateway', { skip }, async () => {
  const client = `require('node:tls').connect(80, 'web.shop', { rejectUnauthorized: false }, function () {
    this.write('GET / HTTP/1.1\\r\\nhost: web\\r\\n\\r\\n');
  }).on('error', ({ code }) => console.log('refused:', code)).on('data', (data) => console.log('answered:', String(data)))`;
  const script = `kubectl run stranger -n shop --image=${imageName('meshcert')} --restart=Never --command -- /usr/bin/node -e "$0"
    kubectl wait -n shop --for=jsonpath={.status.phase}=Succeeded pod/stranger --timeout=60s
    kubectl logs -n shop stranger`;
  const said = await world.shell.run(script.replace('$0', client.replaceAll('"', '')));
  assert.match(said, /refused: ERR_SSL/);
  assert.doesNotMatch(said, /answered/);
});
