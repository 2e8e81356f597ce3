import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually } from '../peers/parts/eventually.ts';
import { type Load, startLoad } from '../peers/parts/load.ts';
import { noCluster } from './cluster.ts';
import { GATEWAY } from './mesh/gateway.ts';
import { apply, eventsAndLogs, rolledOut } from './mesh/objects.ts';
import { startWorld, type World } from './world.ts';

const skip = noCluster();
const { namespace } = GATEWAY;

let world: World;
let load: Load;

/** Traffic flows from before the first test until after the last. */
before(async () => {
  if (skip) return;
  world = await startWorld();
  await apply(world.cluster, {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'web', namespace, labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: '/web/', service: 'https://web.shop:80' },
  });
  await user(`helm install meshcert ${world.chart} -n emissary --wait -f ${VALUES}`);
  load = startLoad(world.gateway.url, await world.gateway.ready('web.shop'), 50);
});
after(async () => {
  await load?.stop();
  await world?.[Symbol.asyncDispose]();
});

const VALUES = new URL('../../deploy/helm/examples/istio.yaml', import.meta.url).pathname;

const user = (script: string): Promise<string> =>
  world.shell.run(script).catch(async (error) => {
    throw new Error(`${error.message}\n${await eventsAndLogs(world.cluster, namespace)}`);
  });

const get = (path: string): Promise<string> => user(`kubectl get -n emissary ${path}`);

/** The pod that writes. */
const writer = async (): Promise<string> =>
  ((await get("lease meshcert -o jsonpath='{.spec.holderIdentity}'")).split('_')[0] ?? '').trim();

const leaf = (): Promise<string> => get("secret istio-identity -o jsonpath='{.data.tls\\.crt}'");

const pods = async (): Promise<string[]> =>
  (await get('pods -l app.kubernetes.io/name=meshcert --field-selector=status.phase=Running -o name'))
    .trim()
    .split('\n');

/** Milliseconds until another leaf is published, and by whom. */
async function nextWrite(): Promise<number> {
  const start = performance.now();
  const before = await leaf();
  await eventually('a new leaf', async () => (await leaf()) !== before, undefined, 120_000);
  return Math.round(performance.now() - start);
}

const noFailure = () => assert.equal(load.failed, 0, load.failures.join('\n'));

test('the pod of the writer is deleted by force: the other replica takes over', { skip }, async (t) => {
  const killed = await writer();
  const start = performance.now();
  await user(`kubectl delete pod ${killed} -n emissary --force --grace-period=0`);
  await eventually('another writer', async () => ![killed, ''].includes(await writer()), undefined, 60_000);
  t.diagnostic(
    `another writer after ${Math.round(performance.now() - start)} ms, next write ${await nextWrite()} ms later`,
  );
  await rolledOut(world.cluster, namespace, 'meshcert');
  noFailure();
});

test('both replicas are evicted in turn: the budget keeps one, the Lease is handed over', { skip }, async (t) => {
  const { cluster } = world;
  const evict = async (pod: string) => {
    const name = pod.replace('pod/', '');
    const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace } };
    return (await cluster.call('POST', `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, body)).status;
  };
  const first = await writer();
  const second = (await pods()).find((pod) => !pod.endsWith(first)) ?? '';
  const start = performance.now();
  assert.equal(await evict(first), 201);
  assert.equal(await evict(second), 429, 'the budget lets both go at once');
  await eventually('another writer', async () => ![first, ''].includes(await writer()), undefined, 60_000);
  t.diagnostic(`another writer ${Math.round(performance.now() - start)} ms after the eviction`);
  await rolledOut(cluster, namespace, 'meshcert');
  await eventually('the second may go', async () => (await evict(second)) === 201, undefined, 60_000);
  await rolledOut(cluster, namespace, 'meshcert');
  t.diagnostic(`next write after ${await nextWrite()} ms`);
  noFailure();
});

test('the API server restarts', { skip }, async (t) => {
  await world.cluster.apiserver.restart();
  t.diagnostic(`next write ${await nextWrite()} ms after it was ready`);
  noFailure();
});

test('helm upgrade and helm rollback', { skip }, async (t) => {
  const upgrade = `helm upgrade meshcert ${world.chart} -n emissary --wait -f ${VALUES} --set logLevel=debug`;
  assert.match(await user(upgrade), /REVISION: 2/);
  await user('helm rollback meshcert 1 -n emissary --wait');
  assert.match(await user('helm history meshcert -n emissary'), /Rollback to 1/);
  t.diagnostic(`next write after ${await nextWrite()} ms`);
  noFailure();
});

test('the file system is read-only, and no capability is left', {
  skip,
}, async (t) => {
  const [pod = ''] = await pods();
  const script = `const { readFileSync, writeFileSync } = require('node:fs');
    let written; try { writeFileSync('/x', ''); written = 'written'; } catch ({ code }) { written = code; }
    const status = readFileSync('/proc/1/status', 'utf8');
    console.log(written, /CapEff:\\s*(\\S+)/.exec(status)[1], /NoNewPrivs:\\s*(\\S+)/.exec(status)[1],
      /Uid:\\s*(\\S+)/.exec(status)[1], /VmRSS:\\s*(\\d+)/.exec(status)[1]);`;
  const said = await world.cluster.kubectl(['exec', '-n', namespace, pod, '--', '/usr/bin/node', '-e', script]);
  const [written, capabilities, noNewPrivileges, uid, kib] = said.trim().split(' ');
  t.diagnostic(`${Number(kib) / 1024} MiB resident`);
  assert.deepEqual([written, capabilities, noNewPrivileges, uid], ['EROFS', '0000000000000000', '1', '65532']);
});

test('helm uninstall without offboard leaves what the gateway uses', { skip }, async (t) => {
  await user('helm uninstall meshcert -n emissary --wait');
  const left = await get('secrets,tlscontexts,mappings');
  for (const name of ['istio-identity', 'istio-ca', 'tlscontext.getambassador.io/istio', 'web']) {
    assert.ok(left.includes(name), left);
  }
  // Some more requests; the leaf has at least a third of its minute left.
  const { answered } = load;
  await eventually('50 more answers', async () => load.answered >= answered + 50 || load.failed > 0, undefined, 30_000);
  await load.stop();
  t.diagnostic(`${load.answered} answered, ${load.failed} failed, from the first test to here`);
  noFailure();
});
