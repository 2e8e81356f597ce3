import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KubeObject } from '../../objects/objects.ts';
import { GATEWAY_API_RESOURCES as KINDS } from './config.ts';
import { standIns } from './onboarding.ts';

const object = ({ apiVersion, kind }: { apiVersion: string; kind: string }, status: object): KubeObject => ({
  ...{ apiVersion, kind, status },
  metadata: { name: 'web', namespace: 'shop', generation: 2 },
});
const condition = (type: string, status: string, observedGeneration = 2, message = 'why') => ({
  ...{ type, status, observedGeneration, message },
  reason: 'Because',
});
const route = (controllerName: string, ...conditions: object[]) =>
  object(KINDS.httpRoutes, { parents: [{ controllerName, conditions }] });

describe('what Envoy Gateway has not done yet', () => {
  it('is to accept a Backend that it refuses; without a route, it says nothing about one', () => {
    const pending = (...conditions: object[]) => standIns.pending(object(KINDS.backends, { conditions }));
    assert.equal(pending(condition('Accepted', 'True')), undefined);
    assert.equal(pending(), undefined);
    assert.deepEqual(pending(condition('Accepted', 'False')), {
      why: 'Backend shop/web to be accepted: why',
      refused: true,
    });
  });

  it('is to accept a route in its current generation, whatever other controllers say', () => {
    const eg = 'gateway.envoyproxy.io/x';
    const good = [condition('Accepted', 'True'), condition('ResolvedRefs', 'True')];
    assert.equal(standIns.pending(route(eg, ...good)), undefined);
    assert.equal(standIns.pending(route('istio.io/x', ...good))?.why, 'Envoy Gateway to take HTTPRoute shop/web');
    const old = [condition('Accepted', 'True'), condition('ResolvedRefs', 'True', 1)];
    assert.deepEqual(standIns.pending(route(eg, ...old)), {
      why: 'Envoy Gateway to take HTTPRoute shop/web',
      refused: false,
    });
    const bad = [condition('Accepted', 'True'), condition('ResolvedRefs', 'False')];
    const why = 'HTTPRoute shop/web to be accepted: Because: why';
    assert.deepEqual(standIns.pending(route(eg, ...bad)), { why, refused: true });
  });
});
