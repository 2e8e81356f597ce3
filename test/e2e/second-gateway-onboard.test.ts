import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { istio } from '../../adapters/istio/adapter.ts';
import { gateways as builtIn } from '../../src/gateways.ts';
import { connect } from '../../src/kube/client.ts';
import { fields, type KubeObject, refOf } from '../../src/objects/objects.ts';
import { carryOutOff, lookAndPlanOff } from '../../src/onboard/offboard.ts';
import { carryOut, isNothing, lookAndPlan } from '../../src/onboard/onboard.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import * as made from '../support/onboard-cluster.ts';
import { TOY, toyDefinitions } from '../support/toy-gateway.ts';
import { onboardableToy } from '../support/toy-onboarding.ts';

const route = (name: string): KubeObject => ({
  apiVersion: TOY.routes.apiVersion,
  kind: TOY.routes.kind,
  metadata: { name, namespace: 'shop' },
  spec: { service: name },
});

describe('onboarding of a gateway that is not Emissary', () => {
  it('is carried out, has nothing left to do, and is reversed', async () => {
    const objects = [
      ...toyDefinitions(),
      made.workload({ name: 'toy', namespace: NAMESPACE, image: 'toy:1.0', serviceAccount: 'toy' }),
      ...made.istiod(),
      ...made.app('istio', 'web', 'shop'),
      ...made.app('none', 'plain', 'shop'),
    ];
    await using world = await AgentWorld.start({ namespaces: [NAMESPACE, 'shop', 'istio-system'], objects });
    for (const name of ['web', 'plain']) world.api.put(route(name));
    const gateways = [...builtIn, onboardableToy];
    world.gateways = gateways;
    // Found as Istio is, and issued by the toy mesh, which has no network.
    const { discover, pods } = istio;
    assert.ok(discover && pods);
    const configured = { ...discover, configFor: () => ({ sds: {} }) };
    const adapters = [{ ...world.mesh.adapter, discover: configured, pods }];
    const { clock } = world;
    const kinds = gateways.flatMap(({ resources }) => resources);
    const kube = connect({ kubeconfigText: world.api.kubeconfig(), userAgent: 'onboard', kinds, clock });
    const said: string[] = [];
    const stop = new AbortController();
    const common = { kube, adapters, gateways, clock, signal: stop.signal };
    const say = { line: (text: string) => void said.push(text), waiting: () => {} };
    const options = {
      ...{ ...common, say, random: () => 0.5, preferences: { changes: [] }, directories: new Map() },
      ...{ probe: false, connectTo: new Map(), gatewayUrl: undefined, timeoutMs: 120_000, settleMs: 0 },
    };
    const through = async <T>(promise: Promise<T>, what: string): Promise<T> => {
      let settled = false;
      const over = () => {
        settled = true;
      };
      promise.then(over, over);
      await world.until(what, () => settled, 20);
      return promise;
    };
    const policyOf = async (name: string) => fields((await kube.get(refOf(route(name))))?.spec).policy;
    try {
      const plan = await through(lookAndPlan(options), 'the plan');
      const carried = carryOut(plan, options);
      await world.until('the MeshCertificate', () => said.some((line) => line.startsWith('MeshCertificate')), 20);
      world.follow();
      assert.deepEqual(await through(carried, 'the way in'), [], said.join('\n'));
      assert.ok(said.includes('ToyRoute shop/web moved to istio'), said.join('\n'));
      assert.deepEqual([await policyOf('web'), await policyOf('plain')], ['istio-web', undefined]);
      assert.ok(isNothing(await through(lookAndPlan(options), 'the second plan')));

      const off = { ...common, say, namespace: NAMESPACE, names: [] };
      const back = await through(lookAndPlanOff(off), 'the plan of the way out');
      await through(carryOutOff(back, off), 'the way out');
      assert.equal(await policyOf('web'), undefined);
      const policy = { apiVersion: TOY.policies.apiVersion, kind: TOY.policies.kind, namespace: 'shop' };
      assert.equal(await kube.get({ ...policy, name: 'istio-web' }), undefined);
    } finally {
      stop.abort(new Error('the test is over'));
      kube.close();
    }
  });
});
