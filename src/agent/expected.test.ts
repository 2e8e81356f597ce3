import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { consul } from '../../adapters/consul/adapter.ts';
import { istio } from '../../adapters/istio/adapter.ts';
import { linkerd } from '../../adapters/linkerd/adapter.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import type { RouteDestination } from '../gateway/gateway.ts';
import type { Kube } from '../kube/api.ts';
import { connect } from '../kube/client.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { expectedAt } from './upstreams.ts';

const identity = { id: 'spiffe://cluster.local/ns/emissary/sa/emissary' };
const web: RouteDestination = { address: 'web.shop:443', service: { namespace: 'shop', name: 'web' } };
const idOf = (account: string) => `spiffe://cluster.local/ns/shop/sa/${account}`;
const signal = new AbortController().signal;

let api: KubeApi;
let kube: Kube;
before(async () => {
  api = await startKubeApi({ tls: false, namespaces: ['shop'] });
  kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
  const service = (name: string, selector?: object) =>
    api.put({ apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'shop' }, spec: { selector } });
  const pod = (name: string, app: string, serviceAccountName?: string, annotations = {}) =>
    api.put({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'shop', labels: { app }, annotations },
      spec: { serviceAccountName, containers: [] },
    });
  service('web', { app: 'web' });
  service('idle', { app: 'idle' });
  service('bare');
  pod('web-1', 'web', 'web');
  pod('web-2', 'web', 'web-canary');
  pod('web-3', 'web');
  pod('other', 'other', 'other');
  service('shop', { app: 'shop' });
  pod('shop-1', 'shop');
  pod('shop-2', 'shop', 'x', { 'consul.hashicorp.com/connect-service': 'frontend' });
});
after(async () => {
  kube.close();
  await api.stop();
});

interface Given {
  readonly adapter?: Adapter;
  readonly serviceAccounts?: boolean;
  readonly own?: { readonly id: string };
  readonly identities?: readonly { readonly service: string; readonly ids: readonly string[] }[];
}

function expected(
  upstream: RouteDestination,
  { adapter = istio as Adapter, serviceAccounts, identities, own = identity }: Given = {},
) {
  const spec = { intervalMs: 1, serviceAccounts: serviceAccounts ?? false, identities: identities ?? [] };
  return expectedAt(upstream, own, { kube, adapter, spec }, signal);
}

describe('the expected identity of an upstream', () => {
  it('is the one that the user listed, under any name of the Service, with or without a port', async () => {
    const named = { ...web, id: 'other' };
    for (const service of ['web.shop', 'WEB.shop', 'web.shop.svc', 'web.shop.svc.cluster.local', 'web.shop:443']) {
      assert.deepEqual(await expected(named, { identities: [{ service, ids: ['a', 'b'] }] }), { ids: ['a', 'b'] });
    }
    for (const service of ['web.shop:8443', 'web.shop2', 'web', 'eb.shop', 'web.shop.example.com']) {
      assert.deepEqual(await expected(named, { identities: [{ service, ids: ['a'] }] }), { ids: ['other'] }, service);
    }
    const outside: RouteDestination = { address: '[fd00::1]:443' };
    for (const service of ['[fd00::1]', '[fd00::1]:443']) {
      assert.deepEqual(await expected(outside, { identities: [{ service, ids: ['a'] }] }), { ids: ['a'] }, service);
    }
  });

  it('is what the mesh names', async () => {
    const id = 'web.shop.serviceaccount.identity.linkerd.cluster.local';
    assert.deepEqual(await expected({ ...web, id, sni: id }, { adapter: linkerd as Adapter }), { ids: [id] });
  });

  it('follows from the ServiceAccounts of all pods that the Service selects', async () => {
    const ids = ['default', 'web', 'web-canary'].map(idOf);
    assert.deepEqual(await expected(web, { serviceAccounts: true }), { ids });
  });

  it('is that of the service of Consul of each pod, which an annotation may name', async () => {
    const own = { id: 'spiffe://11111111-2222.consul/ns/default/dc/dc1/svc/gateway' };
    const shop = { address: 'shop.shop:443', service: { namespace: 'shop', name: 'shop' } };
    const ids = ['frontend', 'shop'].map((name) => `spiffe://11111111-2222.consul/ns/default/dc/dc1/svc/${name}`);
    assert.deepEqual(await expected(shop, { adapter: consul as Adapter, serviceAccounts: true, own }), { ids });
  });

  it('is any of those that the gateway accepts there, in the trust domain of its own identity', async () => {
    const names = [{ path: '/ns/shop/sa/web' }, { dns: 'web.shop' }, { uri: 'spiffe://td/x' }];
    assert.deepEqual(await expected({ ...web, names }), { ids: [idOf('web'), 'web.shop', 'spiffe://td/x'] });
  });

  it('is unknown without all of these, and the message says what to do', async () => {
    const of = (name: string): RouteDestination => ({
      address: `${name}.shop:443`,
      service: { namespace: 'shop', name },
    });
    const cases: [RouteDestination, Given, RegExp][] = [
      [web, {}, /list it in spec\.upstreams\.identities, or set spec\.upstreams\.serviceAccounts$/],
      [{ address: '192.0.2.1:443' }, { serviceAccounts: true }, /list it in spec\.upstreams\.identities$/],
      [of('idle'), { serviceAccounts: true }, /Service shop\/idle has no pods; start them/],
      [of('bare'), { serviceAccounts: true }, /Service shop\/bare selects no pods/],
      [of('gone'), { serviceAccounts: true }, /Service shop\/gone does not exist/],
    ];
    for (const [upstream, given, message] of cases) {
      const found = await expected(upstream, given);
      assert.ok('code' in found, upstream.address);
      assert.equal(found.code, 'ERR_UPSTREAM_UNNAMED');
      assert.match(found.message, message);
    }
  });
});
