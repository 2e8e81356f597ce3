import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { systemClock } from '../../src/async/clock.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { gateways as builtIn } from '../../src/gateways.ts';
import { fields, type KubeObject } from '../../src/objects/objects.ts';

import { planOffboarding } from '../../src/onboard/offboard.ts';
import { showFindings } from '../../src/onboard/onboard.ts';
import { type OnboardPlan, planOnboarding, showPlan } from '../../src/onboard/plan.ts';
import * as made from '../support/onboard-cluster.ts';
import { TOY } from '../support/toy-gateway.ts';
import { onboardableToy as toy } from '../support/toy-onboarding.ts';

const { signal } = new AbortController();
const HOME = 'edge';
const runs = made.workload({ name: 'toy', namespace: HOME, image: 'toy:1.0', serviceAccount: 'toy' });

const route = (name: string, service: string): KubeObject => ({
  apiVersion: TOY.routes.apiVersion,
  kind: TOY.routes.kind,
  metadata: { name, namespace: 'shop', resourceVersion: '7' },
  spec: { service },
});

function snapshotOf(routes: readonly KubeObject[], more: readonly KubeObject[] = []) {
  const objects = [runs, ...made.istiod(), ...made.app('istio', 'web', 'shop'), ...made.app('none', 'plain', 'shop')];
  const all = made.snapshotOf([...objects, ...more]);
  const own = more.filter(({ apiVersion }) => apiVersion === TOY.policies.apiVersion);
  return { ...all, gatewayObjects: [...all.services, ...routes, ...own] };
}

const plan = (snapshot: ReturnType<typeof snapshotOf>, gateways: readonly Gateway[] = [...builtIn, toy]) =>
  planOnboarding(snapshot, { changes: [] }, new Map(), { adapters, gateways, clock: systemClock }, signal);

const moveOf = ({ moves: [move] }: OnboardPlan) => move ?? assert.fail('nothing moves');

describe('a gateway that onboard does not know', () => {
  it('is found, joins, and moves its routes by their labels, consent and its own change', async () => {
    const found = await plan(snapshotOf([route('web', 'web'), route('plain', 'plain')]));
    const [joined] = found.joined;
    assert.deepEqual(fields(joined?.document?.spec), {
      istio: { ca: { address: 'istiod.istio-system.svc:15012', serviceAccount: 'toy' } },
      toy: { selector: { 'meshcert.dev/mesh': 'istio' }, namespaces: ['shop'] },
    });
    const { patch } = moveOf(found);
    assert.deepEqual(patch?.spec, { policy: 'istio-web' });
    assert.deepEqual(patch?.metadata.labels, { 'meshcert.dev/mesh': 'istio' });
    assert.equal(patch?.metadata.annotations?.['meshcert.dev/allow-from'], HOME);
    const shown = showFindings(found.findings, found.gateway, found.verdicts, adapters) + showPlan(found);
    for (const line of [
      /edge\/toy {2}Toy 1\.0 \(Deployment\)\n {4}ServiceAccount toy, plays everywhere, no sidecar/,
      /\nToyRoutes\n/,
      /shop\/web {2}web \(plaintext, 1 pod in istio\)\n {4}can move to istio \(ToyPolicy istio-web\)/,
      /shop\/plain .*\n {4}stays: ERR_TARGET_UNMESHED/,
      /it is a toy/,
    ]) {
      assert.match(shown, line);
    }
  });

  it('has nothing to do once the route has moved', async () => {
    const first = await plan(snapshotOf([route('web', 'web')]));
    const again = await plan(snapshotOf([moveOf(first).object], [first.joined[0]?.document as KubeObject]));
    assert.deepEqual(again.moves, []);
    assert.equal(again.verdicts[0]?.outcome.kind, 'done');
  });

  it('leaves with its routes as they were, and without its objects in all namespaces', async () => {
    const before = route('web', 'web');
    const first = await plan(snapshotOf([before]));
    const policy: KubeObject = {
      apiVersion: TOY.policies.apiVersion,
      kind: TOY.policies.kind,
      metadata: { name: 'istio-web', namespace: 'shop', labels: { 'meshcert.dev/owner': `${HOME}.istio` } },
    };
    const document = first.joined[0]?.document as KubeObject;
    const snapshot = snapshotOf([moveOf(first).object], [document, policy]);
    const [leaving] = planOffboarding(snapshot, HOME, [], made.nothingElse, [...builtIn, toy]).leaving;
    assert.deepEqual(
      leaving?.objects.map(({ kind, namespace, name }) => [kind, namespace, name]),
      [['ToyPolicy', 'shop', 'istio-web']],
    );
    assert.deepEqual(leaving?.inUse, []);
    const [release] = leaving?.releases ?? [];
    assert.equal(release?.how, 'restore');
    assert.ok(
      release?.diff.some((line) => /^- +policy: istio-web/.test(line)),
      release?.diff.join('\n'),
    );
  });

  it('is named if there is none of any kind', async () => {
    const snapshot = { ...snapshotOf([]), workloads: made.istiod().filter(({ kind }) => kind === 'Deployment') };
    await assert.rejects(plan(snapshot), {
      code: 'ERR_ONBOARD_NO_GATEWAY',
      message: /, and no Deployment runs the toy; /,
    });
  });
});
