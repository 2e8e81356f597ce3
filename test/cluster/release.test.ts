import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually } from '../peers/parts/eventually.ts';
import { noCluster } from './cluster.ts';
import { type Life, podOf, startLife, VALUES } from './life.ts';
import { GATEWAY } from './mesh/gateway.ts';
import { rolledOut } from './mesh/objects.ts';
import { type Clocks, makeClocks } from './node/clocks.ts';

const skip = noCluster();
const { namespace } = GATEWAY;

let life: Life;
let clocks: Clocks;

/** Traffic flows from before the first test until after the last. */
before(async () => {
  if (skip) return;
  life = await startLife(async ({ cluster, chart, shell }) => {
    clocks = await makeClocks(cluster.node);
    await writeFile(join(shell.dir, 'clocks.json'), JSON.stringify(clocks.values));
    return `helm install meshcert ${chart} -n emissary --wait -f ${VALUES} -f clocks.json`;
  });
});
after(() => life?.[Symbol.asyncDispose]());

const ready = (): Promise<void> => rolledOut(life.world.cluster, namespace, 'meshcert');

/** The pod that waits for the Lease. */
const follower = async (): Promise<string> => {
  const writer = await life.writer();
  return (await life.pods()).find((pod) => pod !== writer) ?? '';
};

// biome-ignore lint/suspicious/noExplicitAny: the state of a container as the API server has it
const stateOf = async (pod: string): Promise<any> => {
  const { body } = await life.world.cluster.call('GET', `/api/v1/namespaces/${namespace}/pods/${pod}`);
  return body.status?.containerStatuses?.[0];
};

const MIB = 2 ** 20;

test('a pod starts', { skip }, async (t) => {
  await life.user(`kubectl delete pod ${await follower()} -n emissary --wait=false`);
  const known = await life.pods();
  const start = performance.now();
  await eventually('a new pod that is ready', async () => {
    const [name = ''] = (await life.pods()).filter((pod) => !known.includes(pod));
    return name !== '' && (await stateOf(name)).ready;
  });
  t.diagnostic(`ready ${Math.round(performance.now() - start)} ms after the one before it was deleted`);
  for (const pod of await life.pods()) {
    const { charged, anonymous } = await (await life.container(pod)).memory();
    t.diagnostic(
      `${(charged / MIB).toFixed(1)} MiB by its cgroup, ${(anonymous / MIB).toFixed(1)} MiB of them its own`,
    );
  }
});

test('both replicas are evicted in turn: the budget keeps one, the Lease is handed over', { skip }, async (t) => {
  const { cluster } = life.world;
  const evict = async (pod: string) => {
    const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: pod, namespace } };
    return (await cluster.call('POST', `/api/v1/namespaces/${namespace}/pods/${pod}/eviction`, body)).status;
  };
  await ready();
  const [holder, second] = [await life.holder(), await follower()];
  assert.equal(await evict(podOf(holder)), 201);
  assert.equal(await evict(second), 429, 'the budget lets both go at once');
  const [writer, write] = await Promise.all([life.nextWriter(holder), life.nextWrite()]);
  t.diagnostic(`another writer ${writer} ms after the eviction, next write after ${write} ms`);
  await ready();
  await eventually('the second may go', async () => (await evict(second)) === 201);
  await ready();
  t.diagnostic(await life.unharmed());
});

test('the pod of the writer is deleted by force', { skip }, async (t) => {
  const holder = await life.holder();
  await life.user(`kubectl delete pod ${podOf(holder)} -n emissary --force --grace-period=0`);
  const [other, write] = await Promise.all([life.nextWriter(holder), life.nextWrite()]);
  t.diagnostic(`another writer after ${other} ms, next write after ${write} ms`);
  await ready();
  t.diagnostic(await life.unharmed());
});

test('the writer is killed: the kubelet starts it again, and another process takes over', { skip }, async (t) => {
  const holder = await life.holder();
  const writer = podOf(holder);
  process.kill((await life.container(writer)).pid, 'SIGKILL');
  const [other, write] = await Promise.all([life.nextWriter(holder), life.nextWrite()]);
  t.diagnostic(`another writer after ${other} ms, next write after ${write} ms`);
  const { restartCount, lastState } = await stateOf(writer);
  assert.deepEqual([restartCount, lastState.terminated.exitCode], [1, 137]);
  await ready();
  t.diagnostic(await life.unharmed());
});

test('the writer has no memory left: the kernel kills it', { skip }, async (t) => {
  const holder = await life.holder();
  const writer = podOf(holder);
  const container = await life.container(writer);
  const { anonymous } = await container.memory();
  // What the agent has fits; another process beside it does not, and the kernel ends the larger one.
  await container.limitMemory(anonymous + 4 * MIB);
  await life.user(`kubectl exec ${writer} -n emissary -- /usr/bin/node -e 0 || true`);
  const [other, write] = await Promise.all([life.nextWriter(holder), life.nextWrite()]);
  t.diagnostic(`another writer after ${other} ms, next write after ${write} ms`);
  await eventually('the reason', async () => {
    // The kubelet does not always learn why the kernel killed it; nobody else does in this test.
    const { reason, exitCode } = (await stateOf(writer)).lastState.terminated ?? {};
    return reason === 'OOMKilled' || exitCode === 137;
  });
  await ready();
  t.diagnostic(await life.unharmed());
});

test('the clock of the writer is wrong: by a sixth of the lifetime, and by two hours', { skip }, async (t) => {
  const writer = await life.writer();
  for (const seconds of [10, -10]) {
    await clocks.shift(writer, seconds);
    const rotations = life.pair.leaves.length + 1;
    await life.pair.until(() => life.pair.leaves.length >= rotations, 180_000, `a rotation at ${seconds} s`);
  }
  await clocks.shift(writer, 0);
  for (const seconds of [7200, -7200]) {
    await life.nextWrite();
    // Another replica may lead since the clock was moved.
    const writer = await life.writer();
    const published = life.pair.leaves.length;
    await clocks.shift(writer, seconds);
    await life.user(`kubectl annotate mcert istio -n emissary --overwrite meshcert.dev/renew=${Date.now()}`);
    const degraded = `mcert istio -o jsonpath='{.status.conditions[?(@.type=="Degraded")]}'`;
    await eventually('a reason', async () => /"status":"True"/.test(await life.get(degraded)), undefined, 30_000);
    t.diagnostic(`${seconds} s: ${await life.get(degraded)}`);
    assert.equal(life.pair.leaves.length, published, 'a leaf was published by a clock that is wrong');
    await clocks.shift(writer, 0);
  }
  t.diagnostic(`next write ${await life.nextWrite()} ms after the clock is right`);
  t.diagnostic(await life.unharmed());
});

test('the API server restarts', { skip }, async (t) => {
  await life.world.cluster.apiserver.restart();
  t.diagnostic(`next write ${await life.nextWrite()} ms after it was ready`);
  t.diagnostic(await life.unharmed());
});

test('the kubelet rotates the tokens of the agents, and the API server accepts the old ones no longer', {
  skip,
}, async (t) => {
  const { cluster } = life.world;
  const path = '/var/run/secrets/kubernetes.io/serviceaccount/token';
  const script = `process.stdout.write(require('node:fs').readFileSync('${path}'))`;
  const pods = await life.pods();
  const token = await cluster.kubectl(['exec', '-n', namespace, pods[0] ?? '', '--', '/usr/bin/node', '-e', script]);
  const ask = async () =>
    (
      await cluster.call('GET', `/apis/meshcert.dev/v1alpha1/namespaces/${namespace}/meshcertificates`, undefined, {
        token,
      })
    ).status;
  assert.equal(await ask(), 200);
  // The leaves are valid for a minute, and nothing is renewed while the API server restarts: each restart gets a new one.
  t.diagnostic(`next write ${await life.nextWrite()} ms before`);
  await cluster.replaceTokens(async () => {
    t.diagnostic(`next write ${await life.nextWrite()} ms while both tokens are accepted`);
  });
  assert.equal(await ask(), 401);
  t.diagnostic(`next write ${await life.nextWrite()} ms after the old tokens ended`);
  assert.deepEqual(await life.pods(), pods);
  for (const pod of pods) assert.ok((await stateOf(pod)).ready, `${pod} is not ready`);
  t.diagnostic(await life.unharmed());
});

test('the kernel holds the container to no capability, no new privileges, its user, and a read-only root', {
  skip,
}, async () => {
  for (const pod of await life.pods()) {
    const { pid } = await life.container(pod);
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]?.split(/\s/)[0];
    const held = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((name) => Number(`0x${field(name)}`));
    assert.deepEqual(held, [0, 0, 0, 0, 0]);
    // 2: by a filter of system calls.
    assert.deepEqual(['NoNewPrivs', 'Seccomp', 'Uid', 'Gid'].map(field), ['1', '2', '65532', '65532']);
    const root = (await readFile(`/proc/${pid}/mountinfo`, 'utf8'))
      .split('\n')
      .find((line) => line.split(' ')[4] === '/');
    assert.match(root ?? '', /^\d+ \d+ \S+ \S+ \/ ro[, ]/);
  }
});

test('the NetworkPolicy selects the agents, and leads to their port alone', { skip }, async () => {
  const { spec } = JSON.parse(await life.get('networkpolicy meshcert -o json'));
  const selector = Object.entries(spec.podSelector.matchLabels).map((pair) => pair.join('='));
  const selected = await life.get(`pods -o name -l ${selector.join(',')} --field-selector=status.phase=Running`);
  assert.deepEqual(
    selected
      .split('\n')
      .map((pod) => pod.replace('pod/', ''))
      .sort(),
    (await life.pods()).sort(),
  );
  assert.deepEqual(spec.policyTypes, ['Ingress']);
  assert.deepEqual(spec.ingress, [{ ports: [{ port: 9464, protocol: 'TCP' }] }]);
});

test('helm uninstall without offboard leaves what the gateway uses', { skip }, async (t) => {
  await life.nextWrite();
  await life.user('helm uninstall meshcert -n emissary --wait');
  const left = await life.get('secrets,tlscontexts,mappings');
  for (const name of ['istio-identity', 'istio-ca', 'tlscontext.getambassador.io/istio', 'web']) {
    assert.ok(left.includes(name), left);
  }
  const { answered } = life.load;
  await eventually('50 more answers', async () => life.load.answered >= answered + 50 || life.load.failed > 0);
  await life.load.stop();
  t.diagnostic(`from the first test to here: ${await life.unharmed()}`);
});
