import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { findConsul } from '../../adapters/consul/cluster.ts';
import { adapters } from '../../adapters/index.ts';
import { istio } from '../../adapters/istio/adapter.ts';
import { ambientNamespaces, findIstio, injectedNamespaces } from '../../adapters/istio/cluster.ts';
import { findLinkerd } from '../../adapters/linkerd/cluster.ts';
import * as made from '../../test/support/onboard-cluster.ts';
import { installationsOf } from '../gateway/emissary/onboarding.ts';
import { gateways } from '../gateways.ts';
import { versionOf } from '../mesh/cluster.ts';
import { findGateways } from './discover.ts';
import { discover, findUpstreams } from './plan.ts';

const of = (...objects: Parameters<typeof made.snapshotOf>[0]) => made.snapshotOf(objects);

describe('the findings about Istio', () => {
  it('contain the CA of each revision, the default one first', () => {
    const found = findIstio(of(...made.istiod('canary'), ...made.istiod()));
    assert.deepEqual(
      found.map(({ revision, address, version }) => [revision, address, version]),
      [
        ['default', 'istiod.istio-system.svc:15012', '1.27.1'],
        ['canary', 'istiod-canary.istio-system.svc:15012', '1.27.1'],
      ],
    );
  });

  it('contain its trust domain and its name of the cluster', () => {
    const [deployment, service, config] = made.istiod('default', { env: { CLUSTER_ID: 'prod' } });
    assert.ok(deployment && service && config);
    const mesh = { ...config, data: { mesh: 'trustDomain: corp.example\n' } };
    const [found] = findIstio(of(deployment, service, mesh));
    assert.deepEqual([found?.trustDomain, found?.clusterId], ['corp.example', 'prod']);
  });

  it('contain istio-csr if that signs, and say so if istiod does not sign', () => {
    const csr = made.workload({
      name: 'cert-manager-istio-csr',
      namespace: 'cert-manager',
      image: 'quay.io/jetstack/cert-manager-istio-csr:v0.14.0',
    });
    const found = findIstio(of(...made.istiod('default', { env: { ENABLE_CA_SERVER: 'false' } }), csr));
    assert.deepEqual(
      found.map(({ signer, address }) => [signer, address]),
      [
        ['istio-csr', 'cert-manager-istio-csr.cert-manager.svc:443'],
        ['istiod', 'istiod.istio-system.svc:15012'],
      ],
    );
    assert.match(found[1]?.problem ?? '', /ENABLE_CA_SERVER=false/);
  });

  it('lead to the ClusterTrustBundle where istiod writes its roots into one', () => {
    const specOf = (env: Record<string, string>) => {
      const [installation] = findIstio(of(...made.istiod('default', { env })));
      assert.ok(installation);
      return istio.discover?.configFor(installation, 'emissary', []);
    };
    const ca = { address: 'istiod.istio-system.svc:15012', serviceAccount: 'emissary' };
    assert.deepEqual(specOf({}), { ca });
    assert.deepEqual(specOf({ ENABLE_CLUSTER_TRUST_BUNDLE_API: 'true' }), {
      ca: { ...ca, root: { clusterTrustBundle: {} } },
    });
  });

  it('contain the namespaces with sidecars, and the ambient ones', () => {
    const namespaces = [
      made.namespace('shop', { 'istio-injection': 'enabled' }),
      made.namespace('bank', { 'istio.io/rev': 'canary' }),
      made.namespace('mesh', { 'istio.io/dataplane-mode': 'ambient' }),
      made.namespace('plain'),
    ];
    assert.deepEqual(injectedNamespaces(namespaces), [
      { namespace: 'shop', revision: 'default' },
      { namespace: 'bank', revision: 'canary' },
    ]);
    assert.deepEqual(ambientNamespaces(namespaces), ['mesh']);
  });
});

describe('the findings about Linkerd', () => {
  it('contain the trust domain of linkerd-config, which need not be the cluster domain', () => {
    const [found] = findLinkerd(
      of(made.linkerdConfig({ identityTrustDomain: 'corp.example', linkerdVersion: 'edge-25.8.1' })),
    );
    assert.deepEqual(
      [found?.namespace, found?.trustDomain, found?.clusterDomain, found?.version],
      ['linkerd', 'corp.example', 'cluster.local', 'edge-25.8.1'],
    );
  });

  it('say that its values are unreadable if they are not YAML', () => {
    const broken = { ...made.linkerdConfig(), data: {} };
    assert.match(findLinkerd(of(broken))[0]?.problem ?? '', /no key "values"/);
  });
});

describe('the findings about Consul', () => {
  it('contain plaintext gRPC on 8502 if the chart has no TLS', () => {
    const [found] = findConsul(of(...made.consulServer()));
    assert.deepEqual(
      [found?.address, found?.tls, found?.datacenter, found?.authMethod, found?.version],
      ['consul-server.consul.svc:8502', false, 'dc1', undefined, '1.21.0'],
    );
  });

  it('contain TLS on the same port if the chart has it, with the name in its certificate', () => {
    const certificates = new Map([['consul/consul-ca-cert', 'PEM']]);
    const [found] = findConsul(made.snapshotOf(made.consulServer({ tls: true, acls: true }), { certificates }));
    assert.deepEqual(
      [found?.address, found?.tls, found?.serverName, found?.authority, found?.authMethod, found?.problem],
      ['consul-server.consul.svc:8502', true, 'server.dc1.consul', 'PEM', 'consul-k8s-auth-method', undefined],
    );
  });

  it('say what is missing if the CA of its API cannot be read', () => {
    const [found] = findConsul(of(...made.consulServer({ tls: true })));
    assert.match(
      found?.problem ?? '',
      /consul\/consul-ca-cert could not be read: .*--set consul\.grpc\.tls\.ca\.file=/,
    );
  });
});

const gatewaysIn = (...objects: Parameters<typeof made.snapshotOf>[0]) =>
  findGateways(of(...objects), gateways, adapters);

describe('the findings about the gateway', () => {
  it('contain its product, version, account and how it reads objects', () => {
    const env = {
      AMBASSADOR_ID: 'edge',
      AMBASSADOR_LABEL_SELECTOR: 'team=web',
      // Emissary asks only whether it is empty.
      AMBASSADOR_SINGLE_NAMESPACE: 'false',
      AMBASSADOR_RECONFIG_MAX_DELAY: '3',
      AMBASSADOR_EDS_BYPASS: 'true',
    };
    const [found] = installationsOf(of(made.gateway({ env })));
    assert.deepEqual(
      [found?.product, found?.serviceAccount, found?.version],
      ['Emissary-ingress', 'emissary-ingress', '4.1.0'],
    );
    const { ambassadorId, labelSelector, singleNamespace, batchMs, edsBypass } = found?.env ?? {};
    assert.deepEqual(
      [ambassadorId, labelSelector, singleNamespace, batchMs, edsBypass],
      ['edge', 'team=web', true, 3000, true],
    );
  });

  it('recognise Edge Stack by its image, not by the label that the chart of Emissary sets too', () => {
    const [found] = installationsOf(of(made.gateway({ image: 'docker.io/datawire/aes:3.9.1', name: 'edge-stack' })));
    assert.deepEqual([found?.product, found?.version], ['Edge Stack', '3.9.1']);
    const chart = made.gateway();
    const labelled = { ...chart, metadata: { ...chart.metadata, labels: { product: 'aes' } } };
    assert.equal(installationsOf(of(labelled))[0]?.product, 'Emissary-ingress');
  });

  it('ignore the conversion webhook, which has the same image, and the agent of the cloud', () => {
    const webhook = made.gateway({ name: 'emissary-apiext', args: ['apiext'] });
    const cloud = made.gateway({
      name: 'emissary-ingress-agent',
      image: 'docker.io/ambassador/ambassador-agent:1.0.23',
    });
    assert.deepEqual(gatewaysIn(webhook, cloud), []);
  });

  it('contain the sidecars that its pods have, or will have at their next start', () => {
    const running = { ...made.app('istio', 'emissary-ingress', 'emissary')[1] } as ReturnType<typeof made.gateway>;
    const labelled = {
      ...running,
      metadata: { ...running.metadata, labels: { 'app.kubernetes.io/name': 'emissary-ingress' } },
    };
    const planned = made.gateway({ annotations: { 'linkerd.io/inject': 'enabled' } });
    assert.deepEqual(gatewaysIn(planned, labelled)[0]?.sidecars, ['istio', 'linkerd']);
  });

  it('contain no sidecar if its namespace is injected and its pods opt out', () => {
    const shop = made.namespace('emissary', { 'istio-injection': 'enabled' });
    const refusing = made.gateway({
      labels: { 'app.kubernetes.io/name': 'emissary-ingress', 'sidecar.istio.io/inject': 'false' },
    });
    assert.deepEqual(gatewaysIn(shop, refusing)[0]?.sidecars, []);
    assert.deepEqual(gatewaysIn(shop, made.gateway())[0]?.sidecars, ['istio']);
  });
});

describe('the workload behind a Mapping', () => {
  const found = (objects: Parameters<typeof made.snapshotOf>[0]) => {
    const snapshot = of(made.gateway(), ...objects);
    const [gateway] = discover(snapshot, { adapters, gateways }).gateways;
    assert.ok(gateway);
    return findUpstreams(snapshot, gateway, adapters).map(({ route, address, now, membership, problem }) => {
      return [route.metadata.name, address, now, membership ?? problem?.code ?? 'no mesh'];
    });
  };

  it('is in the mesh of all its pods, determined by what the injectors leave', () => {
    for (const mesh of ['istio', 'linkerd', 'consul', 'ambient'] as const) {
      const rows = found([...made.app(mesh, 'web', 'shop'), made.mapping('web', 'shop', { service: 'web' })]);
      assert.deepEqual(rows, [['web', 'web.shop:80', 'plaintext', mesh]]);
    }
  });

  it('is in no mesh for a missing Service, an address outside, or pods that differ', () => {
    const slices = made.app('none', 'mixed', 'shop');
    const meshed = made.app('istio', 'mixed', 'shop').map((one) => ({
      ...one,
      metadata: { ...one.metadata, name: one.kind === 'Service' ? 'mixed' : `${one.metadata.name}-b` },
    }));
    const second = meshed.map((one) =>
      one.kind === 'EndpointSlice'
        ? {
            ...one,
            endpoints: [{ addresses: ['10.0.0.8'], targetRef: { kind: 'Pod', name: 'mixed-0-b', namespace: 'shop' } }],
          }
        : one,
    );
    assert.deepEqual(
      found([
        ...made.app('none', 'plain', 'shop'),
        ...slices,
        ...second.slice(1),
        made.mapping('a', 'shop', { service: 'plain' }),
        made.mapping('b', 'shop', { service: 'gone.shop' }),
        made.mapping('c', 'shop', { service: 'https://api.example.com' }),
        made.mapping('d', 'shop', { service: 'mixed:80' }),
      ]),
      [
        ['a', 'plain.shop:80', 'plaintext', 'no mesh'],
        ['b', 'gone.shop:80', 'plaintext', 'ERR_TARGET_NO_SERVICE'],
        ['c', 'api.example.com:443', 'TLS without identity', 'ERR_TARGET_NOT_IN_CLUSTER'],
        ['d', 'mixed.shop:80', 'plaintext', 'ERR_TARGET_DISAGREE'],
      ],
    );
  });

  it('is determined only for Mappings that this gateway serves', () => {
    const other = made.mapping('other', 'shop', { service: 'web', ambassador_id: ['edge'] });
    assert.deepEqual(found([...made.app('istio', 'web', 'shop'), other]), []);
  });
});

describe('the version of an image', () => {
  const versions = [
    ['docker.io/istio/pilot:1.24.1-distroless', '1.24.1'],
    ['registry:5000/emissary:3.10.0', '3.10.0'],
    ['registry:5000/emissary', undefined],
    ['emissary:latest', undefined],
    ['quay.io/jetstack/cert-manager-istio-csr:v0.14.0@sha256:00ff', '0.14.0'],
  ] as const;
  for (const [image, version] of versions) {
    it(`of ${image} is ${version ?? 'unknown'}`, () => assert.equal(versionOf(image), version));
  }
});
