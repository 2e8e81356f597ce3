import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { RESOURCES } from '../../src/kube/resources.ts';
import { fields, type KubeObject, refOf } from '../../src/objects/objects.ts';
import { applySteps } from '../../src/onboard/apply.ts';
import { carryOutOff, lookAndPlanOff, type OffboardOptions } from '../../src/onboard/offboard.ts';
import { carryOut, lookAndPlan } from '../../src/onboard/onboard.ts';
import type { OnboardOptions } from '../../src/onboard/plan.ts';
import { say } from '../support/io.ts';
import * as made from '../support/onboard-cluster.ts';
import { OnboardWorld } from '../support/onboard-world.ts';

const RBAC = 'rbac.authorization.k8s.io/v1';
const HELM = {
  labels: { 'app.kubernetes.io/managed-by': 'Helm', 'app.kubernetes.io/name': 'meshcert' },
  annotations: { 'meta.helm.sh/release-name': 'meshcert', 'meta.helm.sh/release-namespace': 'emissary' },
};

/** A cluster with Linkerd and a gateway in each of these namespaces. */
async function worldWith(...namespaces: readonly string[]): Promise<OnboardWorld> {
  const world = await OnboardWorld.start('linkerd');
  for (const name of namespaces) {
    if (name !== 'emissary') world.cluster.api.put(made.namespace(name));
    world.cluster.api.put(made.gateway({ namespace: name, serviceAccount: 'emissary' }));
  }
  return world;
}

const optionsFor = (world: OnboardWorld, namespace: string, more: object = {}): OnboardOptions =>
  world.options({
    preferences: { changes: world.changes(), gateway: `${namespace}/emissary-ingress`, meshes: ['linkerd'], ...more },
  });

/** Everything that `onboard` applies, without the moves: no agent runs here. */
async function prepare(world: OnboardWorld, namespace: string, more: object = {}) {
  const options = optionsFor(world, namespace, more);
  const plan = await world.through(lookAndPlan(options), 'the plan');
  await world.through(applySteps(plan.steps, options, { dryRun: false }), 'the steps');
  return plan;
}

async function offboard(world: OnboardWorld, namespace: string, ...names: readonly string[]): Promise<void> {
  const options: OffboardOptions = { ...world.offOptions(names), namespace };
  const plan = await world.through(lookAndPlanOff(options), 'the plan of the way out');
  await world.through(carryOutOff(plan, options), 'the way out');
}

/** Whether the agent of this namespace may read the ConfigMap of Linkerd, as the authorizer says. */
async function reads(world: OnboardWorld, namespace: string): Promise<boolean> {
  const { apiVersion, kind } = RESOURCES.subjectAccessReviews;
  const resourceAttributes = {
    ...{ verb: 'get', group: '', resource: 'configmaps' },
    ...{ namespace: 'linkerd', name: 'linkerd-config' },
  };
  const spec = { user: `system:serviceaccount:${namespace}:meshcert`, groups: [], resourceAttributes };
  const answer = await world.kube.post(RESOURCES.subjectAccessReviews, {
    ...{ apiVersion, kind, metadata: { name: '' }, spec },
  });
  return fields(answer.status).allowed === true;
}

const KINDS = [RESOURCES.roles, RESOURCES.roleBindings, RESOURCES.clusterRoles, RESOURCES.clusterRoleBindings];

async function rights(world: OnboardWorld): Promise<string[]> {
  const lists = await Promise.all(KINDS.map((resource) => world.kube.list(resource, {})));
  return lists
    .flatMap(({ items }) => items)
    .filter(({ metadata }) => JSON.stringify(metadata).includes('meshcert'))
    .map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`)
    .sort();
}

/** A Role and its binding for these accounts. */
const role = (name: string, namespace: string, accounts: readonly string[], metadata: object, rules: unknown = []) => [
  { apiVersion: RBAC, kind: 'Role', metadata: { name, namespace, ...metadata }, rules },
  {
    ...{ apiVersion: RBAC, kind: 'RoleBinding', metadata: { name, namespace, ...metadata } },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
    subjects: accounts.map((of) => ({ kind: 'ServiceAccount', name: 'meshcert', namespace: of })),
  },
];

const everything = [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }];

/** As version 0.1.0 left it. */
const EARLIER = { labels: { 'app.kubernetes.io/managed-by': 'meshcert', 'meshcert.dev/onboard': 'true' } };
const asOnboard = { fieldManager: 'meshcert-onboard', force: true };

describe('the rights of two gateways in one cluster', () => {
  it('are separate where both are onboarded, also in the namespace of the mesh, and one leaves without the other', async () => {
    await using world = await worldWith('emissary', 'edge');
    await prepare(world, 'emissary');
    await prepare(world, 'edge');
    assert.deepEqual([await reads(world, 'emissary'), await reads(world, 'edge')], [true, true]);
    const both = await rights(world);
    assert.ok(both.includes('RoleBinding linkerd/meshcert-onboard.emissary'), both.join());
    assert.ok(both.includes('RoleBinding linkerd/meshcert-onboard.edge'), both.join());
    await offboard(world, 'edge');
    assert.deepEqual([await reads(world, 'emissary'), await reads(world, 'edge')], [true, false]);
    assert.deepEqual(
      await rights(world),
      both.filter((one) => one.endsWith('.emissary')),
    );
    await offboard(world, 'emissary');
    assert.deepEqual(await rights(world), []);
  });

  it('are separate where render printed them', async () => {
    await using world = await worldWith('emissary', 'edge');
    for (const namespace of ['emissary', 'edge']) {
      const text = `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: linkerd, namespace: ${namespace}}
spec: {linkerd: {serviceAccount: {name: emissary}}}`;
      for (const what of ['--rbac', '--admission-policy']) {
        const { code, stdout, stderr } = await say(['render', what, '-f', '-'], { stdin: text });
        assert.equal(code, 0, stderr);
        for (const document of parseAllDocuments(stdout)) {
          const object = document.toJS() as KubeObject;
          assert.equal(object.metadata.labels?.['meshcert.dev/agent'], `${namespace}.meshcert`);
          if (what === '--rbac') await world.kube.apply(object, { fieldManager: 'kubectl', force: true });
          else assert.equal(object.metadata.name, `meshcert.${namespace}`);
        }
      }
    }
    assert.deepEqual([await reads(world, 'emissary'), await reads(world, 'edge')], [true, true]);
  });
});

describe('onboard and what others created', () => {
  it('changes and deletes nothing that Helm made, and adds what the agent lacks beside it', async () => {
    await using world = await worldWith('emissary');
    const release = [
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'meshcert', namespace: 'emissary', ...HELM } },
      ...role('meshcert', 'emissary', ['emissary'], HELM),
      ...role('meshcert-emissary', 'linkerd', ['emissary'], HELM),
      made.workload({ name: 'meshcert', namespace: 'emissary', image: 'meshcert:1', args: ['agent'] }),
    ].map((one): KubeObject => ({ ...one, metadata: { ...one.metadata, ...HELM } }));
    for (const object of release) await world.kube.create(object, { fieldManager: 'helm' });
    const now = () => Promise.all(release.map((object) => world.kube.get(refOf(object))));
    const before = await now();
    const plan = await prepare(world, 'emissary', { image: 'meshcert:2' });
    const kept = plan.steps.filter(({ action }) => action === 'keep').map(({ object, note }) => [object.kind, note]);
    assert.deepEqual(kept, [
      [
        'ServiceAccount',
        'exists, and onboard did not create it, or no longer maintains it (Helm); it is used as it is',
      ],
      ['Deployment', 'exists, and onboard did not create it, or no longer maintains it (Helm); it is used as it is'],
    ]);
    assert.equal(await reads(world, 'emissary'), true);
    await offboard(world, 'emissary');
    assert.deepEqual(await now(), before);
    assert.deepEqual((await rights(world)).length, 4);
  });

  it('refuses what has its name and is not enough, says whose it is, and writes nothing', async () => {
    await using world = await worldWith('emissary');
    const name = 'meshcert-onboard.emissary';
    const [first, binding] = role(name, 'linkerd', ['emissary'], {});
    for (const object of [first, binding]) await world.kube.create(object as KubeObject, { fieldManager: 'terraform' });
    world.cluster.api.requests.reset();
    const options = optionsFor(world, 'emissary');
    const plan = await world.through(lookAndPlan(options), 'the plan');
    await assert.rejects(world.through(carryOut(plan, options), 'the way in'), {
      code: 'ERR_ONBOARD_NOT_OURS',
      message:
        /^nothing was changed: Role linkerd\/meshcert-onboard\.emissary exists, .*field manager terraform.* run this again/,
    });
    const writes = world.cluster.api.requests.entries.filter(({ verb }) => !['get', 'list', 'watch'].includes(verb));
    assert.deepEqual(writes, []);
    // What grants enough is accepted, and stays.
    const [enough] = role(name, 'linkerd', ['emissary'], {}, everything);
    await world.kube.apply(enough as KubeObject, { fieldManager: 'terraform', force: true });
    const held = await prepare(world, 'emissary');
    assert.deepEqual(
      held.steps.filter(({ action }) => action === 'keep').map(({ object }) => object.kind),
      ['Role', 'RoleBinding'],
    );
    await offboard(world, 'emissary');
    assert.deepEqual(await rights(world), [`Role linkerd/${name}`, `RoleBinding linkerd/${name}`]);
  });

  it('leaves what somebody took over after onboard created it, and says so', async () => {
    await using world = await worldWith('emissary');
    await prepare(world, 'emissary');
    const [mine] = role('meshcert-onboard.emissary', 'linkerd', ['emissary'], {}, everything);
    await world.kube.apply(mine as KubeObject, { fieldManager: 'kustomize-controller', force: true });
    await offboard(world, 'emissary');
    assert.deepEqual(await rights(world), ['Role linkerd/meshcert-onboard.emissary']);
    assert.match(
      world.said.join('\n'),
      /Role linkerd\/meshcert-onboard\.emissary stays: field manager kustomize-controller has taken it over/,
    );
  });

  it('leaves a Role that somebody else’s binding names', async () => {
    await using world = await worldWith('emissary');
    await prepare(world, 'emissary');
    const [, other] = role('meshcert-onboard.emissary', 'linkerd', ['shop'], {});
    const binding = { ...other, metadata: { name: 'more', namespace: 'linkerd' } } as KubeObject;
    await world.kube.create(binding, { fieldManager: 'kubectl' });
    await offboard(world, 'emissary');
    assert.deepEqual(await rights(world), ['Role linkerd/meshcert-onboard.emissary']);
    assert.ok(await world.kube.get(refOf(binding)));
    assert.match(world.said.join('\n'), /stays: it is also for ServiceAccount shop\/meshcert/);
  });

  it('deletes no Secret that the agent did not create, whatever deletionPolicy says', async () => {
    await using world = await worldWith('emissary');
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'linkerd-identity', namespace: 'emissary' } };
    await world.kube.create(secret, { fieldManager: 'kubectl' });
    await prepare(world, 'emissary', { changes: [...world.changes(), 'deletionPolicy=Delete'] });
    await offboard(world, 'emissary');
    assert.ok(await world.kube.get(refOf(secret)));
  });
});

describe('rights under the name that an earlier version gave to all agents', () => {
  it('are replaced where they are for this agent only', async () => {
    await using world = await worldWith('emissary');
    const old = [
      ...role('meshcert', 'emissary', ['emissary'], EARLIER),
      ...role('meshcert', 'linkerd', ['emissary'], EARLIER),
    ];
    for (const object of old) await world.kube.apply(object, asOnboard);
    const plan = await prepare(world, 'emissary');
    const actions = plan.steps.map(({ action, object }) => `${action} ${object.kind}`);
    assert.ok(actions.lastIndexOf('create RoleBinding') < actions.indexOf('delete RoleBinding'), actions.join());
    assert.ok((await rights(world)).every((one) => one.endsWith('/meshcert-onboard.emissary')));
    assert.equal(await reads(world, 'emissary'), true);
  });

  it('are left where they are for another agent, and taken along by the offboarding of their own', async () => {
    await using world = await worldWith('emissary', 'edge');
    // The second gateway has rebound them.
    for (const object of role('meshcert', 'linkerd', ['edge'], EARLIER, everything)) {
      await world.kube.apply(object, asOnboard);
    }
    await prepare(world, 'emissary');
    assert.equal(await reads(world, 'edge'), true);
    await offboard(world, 'emissary');
    assert.deepEqual(await rights(world), ['Role linkerd/meshcert', 'RoleBinding linkerd/meshcert']);
    await offboard(world, 'edge');
    assert.deepEqual(await rights(world), []);
  });
});

describe('offboard of one MeshCertificate', () => {
  const file = (name: string): KubeObject => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: 'emissary' },
    spec: { file: { directory: '/var/run/secrets/meshcert/x' } },
  });

  it('takes away the rights that the others do not need, and all of them and the Lease with the last', async () => {
    await using world = await worldWith('emissary');
    await prepare(world, 'emissary');
    await world.kube.create(file('other'), { fieldManager: 'kubectl' });
    await prepare(world, 'emissary');
    const lease = {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: 'meshcert', namespace: 'emissary' },
    };
    await world.kube.create({ ...lease, spec: { holderIdentity: 'pod' } }, { fieldManager: 'meshcert' });
    const rulesAt = async () =>
      JSON.stringify(
        (await world.kube.get({ ...refOf(lease), apiVersion: RBAC, kind: 'Role', name: 'meshcert-onboard.emissary' }))
          ?.rules,
      );
    assert.match(await rulesAt(), /linkerd-identity","other-ca/);
    await offboard(world, 'emissary', 'linkerd');
    assert.equal(await reads(world, 'emissary'), false);
    assert.doesNotMatch(await rulesAt(), /linkerd/);
    assert.match(await rulesAt(), /other-identity/);
    assert.ok(await world.kube.get(refOf(lease)));
    await offboard(world, 'emissary');
    assert.deepEqual(await rights(world), []);
    assert.equal(await world.kube.get(refOf(lease)), undefined);
  });
});
