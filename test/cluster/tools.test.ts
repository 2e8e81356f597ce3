import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { noCluster } from './cluster.ts';
import { imageName } from './images.ts';
import { GATEWAY } from './mesh/gateway.ts';
import { apply, eventsAndLogs, serviceAccount } from './mesh/objects.ts';
import { startWorld, type World } from './world.ts';

const skip = noCluster();
const { namespace } = GATEWAY;

const MAPPING = {
  apiVersion: 'getambassador.io/v3alpha1',
  kind: 'Mapping',
  metadata: { name: 'web', namespace },
  spec: { hostname: '*', prefix: '/web/', service: 'web.shop:80' },
};

let world: World;
let pods = 0;

before(async () => {
  if (skip) return;
  world = await startWorld();
  await symlink(await builtBundle(), join(world.shell.dir, 'kubectl-meshcert'));
  await apply(world.cluster, MAPPING, serviceAccount('operator', 'default'), {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'operator' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
    subjects: [{ kind: 'ServiceAccount', name: 'operator', namespace: 'default' }],
  });
});
after(() => world?.[Symbol.asyncDispose]());

/** A command of the image in a pod, to its end. Resolves to what it printed; another exit code than 0 is an error. */
async function inPod(...args: readonly string[]): Promise<string> {
  const name = `operator-${++pods}`;
  const { cluster } = world;
  const container = { name, image: imageName('meshcert'), args };
  await apply(cluster, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: { serviceAccountName: 'operator', restartPolicy: 'Never', containers: [container] },
  });
  const phase = await world.shell.run(`phase=
    until [[ $phase == Succeeded || $phase == Failed ]]; do
      kubectl wait pod/${name} --for=condition=Ready=false --timeout=5m >/dev/null
      phase=$(kubectl get pod ${name} -o jsonpath={.status.phase})
    done
    echo $phase`);
  const said = await cluster.kubectl(['logs', name]);
  if (phase.trim() !== 'Succeeded')
    throw new Error(`${args.join(' ')}: ${said}\n${await eventsAndLogs(cluster, namespace)}`);
  return said;
}

/** The same as a plug-in of kubectl, from this machine. */
const plugin = (...args: readonly string[]): Promise<string> =>
  world.shell.run(`PATH=$PWD:$PATH kubectl meshcert ${args.join(' ')}`).catch(async (error) => {
    throw new Error(`${error.message}\n${await eventsAndLogs(world.cluster, namespace)}`);
  });

const answer = async (): Promise<number> => {
  const cluster = await world.gateway.ready('web.shop');
  return (await fetch(world.gateway.url, { headers: { 'x-cluster': cluster } })).status;
};

test('onboard in a pod takes the gateway into the mesh, and runs the agent', { skip }, async (t) => {
  const said = await inPod('onboard', '--yes', `--agent=${imageName('meshcert')}`);
  t.diagnostic(said);
  assert.equal(await answer(), 200);
  const mapping = JSON.parse(await world.shell.run(`kubectl get mapping web -n ${namespace} -o json`));
  assert.equal(mapping.spec.tls, 'istio');
  assert.equal(mapping.spec.service, 'https://web.shop:80');
});

test('status, renew and doctor, as a plug-in of kubectl and in a pod', { skip }, async (t) => {
  for (const run of [plugin, inPod]) {
    const status = await run('status', '--exit-code', '-n', namespace);
    assert.match(status, /^istio +istio .* True /m);
    const renewed = await run('renew', 'istio', '--wait', '-n', namespace);
    t.diagnostic(renewed);
    const doctor = await run('doctor', '-n', namespace);
    t.diagnostic(doctor);
    // A laptop does not know the names of the cluster; the pod has a certificate issued.
    assert.match(
      doctor,
      run === inPod ? /istio-issue: issued spiffe:/ : /istio-connection: .*run meshcert doctor in a pod/,
    );
  }
});

test('offboard in a pod puts the Mapping back', { skip }, async (t) => {
  t.diagnostic(await inPod('offboard', '--yes'));
  const mapping = JSON.parse(await world.shell.run(`kubectl get mapping web -n ${namespace} -o json`));
  assert.deepEqual(mapping.spec, MAPPING.spec);
  assert.doesNotMatch(await world.shell.run(`kubectl get tlscontexts -n ${namespace} 2>&1`), /istio/);
});
