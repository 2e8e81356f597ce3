import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KubeObject } from '../../../mesh/kube-object.ts';
import { GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import { standIns } from './stand-ins.ts';

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
  it('is to accept a Backend, which it never does while Backends are off', () => {
    const pending = (...conditions: object[]) => standIns.pending(object(KINDS.backends, { conditions }));
    assert.equal(pending(condition('Accepted', 'True')), undefined);
    assert.match(pending() ?? '', /^Backend shop\/web has no status; set extensionApis\.enableBackend: true /);
    const off = 'since Backend is not enabled in Envoy Gateway Config';
    assert.match(pending(condition('Accepted', 'False', 2, off)) ?? '', /not enabled.*; set extensionApis/);
    assert.equal(pending(condition('Accepted', 'False')), 'Backend shop/web is not accepted: why');
  });

  it('is to accept a route in its current generation, whatever other controllers say', () => {
    const eg = 'gateway.envoyproxy.io/x';
    const good = [condition('Accepted', 'True'), condition('ResolvedRefs', 'True')];
    assert.equal(standIns.pending(route(eg, ...good)), undefined);
    assert.equal(standIns.pending(route('istio.io/x', ...good)), 'Envoy Gateway to take HTTPRoute shop/web');
    const old = [condition('Accepted', 'True'), condition('ResolvedRefs', 'True', 1)];
    assert.equal(standIns.pending(route(eg, ...old)), 'Envoy Gateway to take HTTPRoute shop/web');
    const bad = [condition('Accepted', 'True'), condition('ResolvedRefs', 'False')];
    assert.equal(standIns.pending(route(eg, ...bad)), 'HTTPRoute shop/web to be accepted: Because: why');
  });
});
