import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TargetRules } from '../../mesh/cluster.ts';
import type { KubeObject } from '../../objects/objects.ts';
import type { ObservedObjects, RouteInput } from '../gateway.ts';
import type { EmissaryConfig } from './config.ts';
import { emissaryRoutes } from './routes.ts';

const mapping = (service: string, metadata: object = {}): KubeObject => ({
  apiVersion: 'getambassador.io/v3alpha1',
  kind: 'Mapping',
  metadata: { name: 'web', namespace: 'emissary', labels: { mesh: 'istio' }, ...metadata },
  spec: { hostname: '*', prefix: '/', service, tls: 'istio' },
});

function upstreamOf(object: KubeObject, more: Partial<RouteInput<EmissaryConfig>> = {}, sni?: string) {
  const config = {
    tlsContext: { name: 'istio', enabled: true, ambassadorIds: [], sni },
    mappings: { selector: { matchLabels: { mesh: 'istio' } } },
  } as EmissaryConfig;
  const input = { meta: { name: 'istio', namespace: 'emissary' }, spec: {}, config, ...more };
  const observed: ObservedObjects = {
    routes: [object],
    own: [],
    behind: () => [],
    unseen: new Map(),
    hidden: () => undefined,
    unserved: new Set(),
  };
  return emissaryRoutes.judge(input as RouteInput<EmissaryConfig>, observed).verdicts[0]?.upstreams?.[0];
}

describe('what a Mapping connects to', () => {
  it('is an address that means the same in every namespace', () => {
    const shop = { namespace: 'shop', annotations: { 'meshcert.dev/allow-from': 'emissary' } };
    const web = { namespace: 'shop', name: 'web' };
    assert.deepEqual(
      [mapping('https://web', shop), mapping('https://web.shop:8443'), mapping('https://192.0.2.1')].map((one) => {
        const { address, service } = upstreamOf(one) ?? {};
        return [address, service];
      }),
      [
        ['web.shop:443', web],
        ['web.shop:8443', web],
        ['192.0.2.1:443', undefined],
      ],
    );
    assert.equal(upstreamOf(mapping('https://[2001:DB8::1]:8443'))?.address, '[2001:db8::1]:8443');
  });

  it('has an identity only if the mesh names workloads by the server name', () => {
    assert.deepEqual(upstreamOf(mapping('https://web.shop'), {}, 'outbound.example')?.id, undefined);
    assert.equal(upstreamOf(mapping('https://web.shop'), {}, 'outbound.example')?.sni, 'outbound.example');
    const id = 'web.shop.serviceaccount.identity.linkerd.cluster.local';
    const rules: TargetRules = {
      discover: false,
      listed: [{ id, serviceAccount: 'web', namespace: 'shop', contextName: 'istio' }],
      identify: () => ({ id }),
    };
    const pods: Readonly<Record<string, readonly KubeObject[]>> = {
      Service: [object('Service', 'web', { clusterIP: 'None' })],
      EndpointSlice: [
        {
          ...object('EndpointSlice', 'web', {}),
          metadata: { name: 'web', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' } },
          ports: [{ port: 443 }],
          endpoints: [{ targetRef: { kind: 'Pod', namespace: 'shop', name: 'web' } }],
        } as KubeObject,
      ],
      Pod: [object('Pod', 'web', { serviceAccountName: 'web' })],
    };
    const config = { tlsContext: { name: 'istio', enabled: true, ambassadorIds: [] } } as unknown as EmissaryConfig;
    const input = { meta: { name: 'istio', namespace: 'emissary' }, spec: {}, config, rules };
    const observed: ObservedObjects = {
      routes: [mapping('https://web.shop')],
      own: [],
      behind: (kind) => pods[kind] ?? [],
      unseen: new Map(),
      hidden: () => undefined,
      unserved: new Set(),
    };
    const { verdicts } = emissaryRoutes.judge(input as unknown as RouteInput<EmissaryConfig>, observed);
    assert.deepEqual([verdicts[0]?.upstreams?.[0]?.id, verdicts[0]?.upstreams?.[0]?.sni], [id, id]);
  });

  it('is not chosen by a Mapping of another namespace without its consent', () => {
    const foreign = { namespace: 'other', labels: {} };
    assert.equal(upstreamOf(mapping('https://10.0.0.1:22', foreign)), undefined);
    const consenting = { ...foreign, annotations: { 'meshcert.dev/allow-from': 'emissary' } };
    assert.equal(upstreamOf(mapping('https://10.0.0.1:22', consenting))?.address, '10.0.0.1:22');
  });
});

const object = (kind: string, name: string, spec: object): KubeObject => ({
  ...{ apiVersion: 'v1', kind, spec },
  metadata: { name, namespace: 'shop' },
});
