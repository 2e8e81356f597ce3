import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GATEWAY_API_RESOURCES } from '../../src/gateway/gateway-api/config.ts';
import { fields, type KubeObject, type Resource } from '../../src/objects/objects.ts';

import { carryOutOff, lookAndPlanOff } from '../../src/onboard/offboard.ts';
import { carryOut, isNothing, leftBehind, lookAndPlan } from '../../src/onboard/onboard.ts';
import type { OnboardOptions } from '../../src/onboard/plan.ts';
import { OnboardWorld, type WorldMesh } from '../support/onboard-world.ts';

const STANDARD = 'gateway.networking.k8s.io/v1';

/** The account that the workloads let in. */
const ALLOWED: Readonly<Record<WorldMesh, readonly string[]>> = {
  istio: ['istio.ca.serviceAccount=emissary'],
  linkerd: ['linkerd.serviceAccount.name=emissary'],
  consul: [],
};

const optionsFor = (world: OnboardWorld, mesh: WorldMesh, changes: Partial<OnboardOptions> = {}) =>
  world.options({
    preferences: { changes: [...world.changes(), ...ALLOWED[mesh]], gateway: `emissary/${mesh}`, meshes: [mesh] },
    gatewayUrl: world.cluster.envoyGateway?.proxyOf(`emissary/${mesh}`)?.url,
    settleMs: undefined,
    ...changes,
  });

async function onboard(world: OnboardWorld, mesh: WorldMesh, options = optionsFor(world, mesh)) {
  const plan = await world.through(lookAndPlan(options), 'the plan');
  return world.through(carryOut(plan, options), 'the way in');
}

async function offboard(world: OnboardWorld, ...names: readonly string[]): Promise<void> {
  const off = world.offOptions(names);
  const back = await world.through(lookAndPlanOff(off), 'the plan of the way out');
  await world.through(carryOutOff(back, off), 'the way out');
}

const routeOf = async (world: OnboardWorld, mesh: WorldMesh): Promise<KubeObject> => {
  const found = await world.kube.get({
    apiVersion: STANDARD,
    kind: 'HTTPRoute',
    namespace: `${mesh}-apps`,
    name: 'web',
  });
  assert.ok(found);
  return found;
};

const secretOf = async (world: OnboardWorld) =>
  (await world.kube.get({ apiVersion: 'v1', kind: 'Secret', namespace: 'emissary', name: 'istio-identity' }))?.data;

async function status(world: OnboardWorld, mesh: WorldMesh): Promise<number> {
  const url = world.cluster.envoyGateway?.proxyOf(`emissary/${mesh}`)?.url;
  return (await fetch(`${url}/${mesh}/`)).status;
}

const core = (apiVersion: string, kind: string, namespaced = true): Resource => ({
  ...{ apiVersion, kind, plural: `${kind.toLowerCase()}s`, namespaced },
});
const RBAC = 'rbac.authorization.k8s.io/v1';
const { policies, backends, grants } = GATEWAY_API_RESOURCES;
const CREATED: readonly Resource[] = [
  ...[policies, backends, grants, core('meshcert.dev/v1alpha1', 'MeshCertificate'), core('v1', 'ConfigMap')],
  ...[core(RBAC, 'Role'), core(RBAC, 'RoleBinding'), core(RBAC, 'ClusterRole', false)],
  ...[core(RBAC, 'ClusterRoleBinding', false), core('v1', 'ServiceAccount')],
];

/** Objects with our labels, but for the Secrets. */
async function left(world: OnboardWorld): Promise<string[]> {
  const lists = await Promise.all(CREATED.map((resource) => world.kube.list(resource, {})));
  return lists
    .flatMap(({ items }) => items)
    .filter(({ metadata }) => JSON.stringify(metadata.labels ?? {}).includes('meshcert'))
    .map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`);
}

describe('onboarding of Envoy Gateway', () => {
  for (const mesh of ['istio', 'linkerd', 'consul'] as const) {
    it(`goes from a cluster without meshcert to traffic over mTLS in ${mesh}, to no change, and back`, async () => {
      await using world = await OnboardWorld.startWithGatewayApi(mesh);
      world.runAgent();
      const before = (await routeOf(world, mesh)).spec;
      const plaintext = await status(world, mesh);
      assert.notEqual(plaintext, 200);
      assert.equal(leftBehind(await onboard(world, mesh))?.message, undefined, world.said.join('\n'));
      assert.equal(await status(world, mesh), 200, world.said.join('\n'));
      assert.ok(isNothing(await world.through(lookAndPlan(optionsFor(world, mesh)), 'the second plan')));

      await offboard(world);
      assert.deepEqual(fields((await routeOf(world, mesh)).spec).rules, [
        {
          ...(fields(before).rules as readonly object[])[0],
          backendRefs: [{ group: '', kind: 'Service', name: 'web', port: 443 }],
        },
      ]);
      await world.through(world.clock.sleep(20_000), 'the old cluster to go');
      assert.equal(await status(world, mesh), plaintext);
      assert.deepEqual(await left(world), []);
    });
  }

  it('adds itself to the MeshCertificate of the gateway beside it, and both are taken out together', async () => {
    await using world = await OnboardWorld.startWithGatewayApi('istio');
    world.runAgent();
    const first = world.options({ preferences: { changes: world.changes(), gateway: 'emissary/emissary-ingress' } });
    const plan = await world.through(lookAndPlan(first), 'the plan');
    assert.equal(leftBehind(await world.through(carryOut(plan, first), 'the way in'))?.message, undefined);
    const identity = await secretOf(world);
    assert.equal(leftBehind(await onboard(world, 'istio'))?.message, undefined, world.said.join('\n'));
    assert.deepEqual([await world.status('istio'), await status(world, 'istio')], [200, 200]);
    assert.deepEqual(await secretOf(world), identity);

    await offboard(world);
    assert.equal(fields((await world.mapping('istio')).spec).tls, undefined);
    await world.through(world.clock.sleep(20_000), 'the old cluster to go');
    assert.deepEqual([await world.status('istio'), await status(world, 'istio')], [503, 503]);
    assert.deepEqual(await left(world), []);
  });

  it('leads a route back when requests fail', async () => {
    await using world = await OnboardWorld.startWithGatewayApi('istio');
    world.runAgent();
    const before = (await routeOf(world, 'istio')).spec;
    const moved = await onboard(world, 'istio', optionsFor(world, 'istio', { gatewayUrl: 'http://127.0.0.1:1' }));
    assert.equal(moved.length, 1);
    assert.match(
      world.said.join('\n'),
      /HTTPRoute istio-apps\/web ERR_ONBOARD_NOT_CONFIRMED: reverted: .*ECONNREFUSED/,
    );
    const refs = fields((fields((await routeOf(world, 'istio')).spec).rules as readonly object[])[0]).backendRefs;
    const given = fields((fields(before).rules as readonly object[])[0]).backendRefs as readonly object[];
    assert.deepEqual(refs, [{ group: '', kind: 'Service', ...given[0] }]);
    assert.equal(leftBehind(await onboard(world, 'istio'))?.message, undefined, world.said.join('\n'));
    assert.equal(await status(world, 'istio'), 200);
  });

  it('does not move a route while who answers is not the account of its pods', async () => {
    await using world = await OnboardWorld.startWithGatewayApi('istio');
    world.runAgent();
    const pods = await world.kube.list(core('v1', 'Pod'), { namespace: 'istio-apps' });
    for (const pod of pods.items) {
      world.cluster.api.put({ ...pod, spec: { ...fields(pod.spec), serviceAccountName: 'other' } });
    }
    assert.equal((await onboard(world, 'istio')).length, 1);
    assert.match(
      world.said.join('\n'),
      /ERR_PROBE_UPSTREAM_ID: not moved: .* presents spiffe:\/\/cluster\.local\/ns\/istio-apps\/sa\/web, not spiffe:.*\/sa\/other/,
    );
  });
});
