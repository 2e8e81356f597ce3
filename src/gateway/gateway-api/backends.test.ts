import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BACKENDS,
  backend,
  backendRoute,
  clientCertificateRef,
  gateway,
  gatewayClass,
  pod,
  policy,
  SPEC,
  service,
  slice,
  without,
} from '../../../test/support/gateway-api.ts';
import {
  type Case,
  CONSENT,
  codesOf,
  ISTIO_PROTOCOLS,
  judgeCase,
  META,
  PRESENTING,
  policiesOf,
  SETTINGS,
} from '../../../test/support/gateway-api-judgement.ts';
import type { KubeObject } from '../../objects/objects.ts';
import { ownLabels } from '../publication.ts';

const istiod = gatewayClass('istio', 'istio.io/gateway-controller');
// istiod watches the Gateway API, and the port has no name.
const bare = service({ ports: [{ port: 443, targetPort: 8443 }] });
const unnamed = { ...slice(['web-1']), ports: [{ name: '', port: 8443 }] };
const behind = [gatewayClass(), istiod, bare, pod('web-1'), unnamed, backendRoute()];
const presenting = backend({ tls: SETTINGS });
const WEB = {
  ...{ kind: 'policy', of: 'Backend', namespace: 'emissary', name: 'web', port: '' },
  ...{ hostname: 'web.shop.svc.cluster.local', names: [{ path: '/ns/shop/sa/web' }] },
};
const withBackends = (backends: readonly KubeObject[], more: Partial<Case> = {}): Case => ({
  ...{ objects: [...behind, ...backends], gatewayApi: BACKENDS },
  ...more,
});
const leadingTo = (...names: readonly string[]) =>
  backend({ endpoints: names.map((hostname) => ({ fqdn: { hostname, port: 443 } })), tls: SETTINGS });
const written = (): KubeObject => {
  const theirs = policy({ group: 'gateway.envoyproxy.io', kind: 'Backend' }, { namespace: 'emissary' });
  return { ...theirs, metadata: { ...theirs.metadata, name: 'istio-web.backend', labels: ownLabels(META, {}) } };
};

describe('a Backend', () => {
  it('present the certificate by default where they alone are selected; Gateways and Services go by the EnvoyProxy', () => {
    const { clientCertificate: _, ...alone } = BACKENDS;
    const { verdicts } = judgeCase(withBackends([backend()], { gatewayApi: alone }));
    const [verdict] = verdicts.filter(({ service: upstream }) => upstream === '');
    assert.ok(verdict && 'target' in verdict.outcome);
    const tls = { clientCertificateRef, alpnProtocols: ISTIO_PROTOCOLS };
    assert.deepEqual(verdict.outcome.target.change?.fields, { spec: { tls } });
    const objects = [gatewayClass(), gateway(), PRESENTING];
    const [proxy] = judgeCase({ objects, gatewayApi: { ...SPEC, ...alone } }).verdicts;
    assert.equal(proxy?.route.kind, 'EnvoyProxy');
  });

  it('is given the certificate and what the mesh needs, and then a policy, though istiod watches the Gateway API', () => {
    const first = judgeCase(withBackends([backend()]));
    assert.deepEqual(first.targets, []);
    const [verdict] = first.verdicts;
    assert.ok(verdict && 'target' in verdict.outcome);
    const tls = { clientCertificateRef, alpnProtocols: ISTIO_PROTOCOLS };
    assert.deepEqual(verdict.outcome.target.change?.fields, { spec: { tls } });
    const then = judgeCase(withBackends([presenting]));
    assert.deepEqual(then.targets, [WEB]);
    assert.deepEqual(
      then.verdicts.map(({ outcome }) => 'target' in outcome && outcome.target.isSet),
      [true, false],
    );
  });

  it('of one mesh does not concern the MeshCertificate of another behind the same Gateway', () => {
    const other = backend({}, { labels: { mesh: 'consul' } }, 'api');
    const { verdicts } = judgeCase(withBackends([presenting, other, gateway()]));
    assert.deepEqual(
      verdicts.map(({ route }) => `${route.kind} ${route.metadata.name}`),
      ['Backend web', 'Backend web'],
    );
  });

  it('in any consenting namespace has a policy once the Gateways present the certificate', () => {
    const { backends } = BACKENDS;
    const there = backend({}, { namespace: 'shop', annotations: CONSENT });
    const of = (proxies: readonly KubeObject[]): Case => ({
      objects: [...behind, gateway(), ...proxies, there],
      gatewayApi: { gateways: SPEC.gateways, backends },
    });
    assert.deepEqual(policiesOf(of([PRESENTING])), [{ ...WEB, namespace: 'shop' }]);
    assert.deepEqual(policiesOf(of([])), []);
  });

  it('must present an identity of any pod behind any of its endpoints', () => {
    const api = { ...service({ selector: { app: 'api' } }, {}, 'api'), kind: 'Service' };
    const objects = [api, pod('api-1', 'api', 'api')];
    const both = leadingTo('web.shop.svc.cluster.local', 'api.shop.svc.cluster.local.');
    const [target] = policiesOf(withBackends([...objects, both]));
    assert.deepEqual(target?.names, [{ path: '/ns/shop/sa/api' }, { path: '/ns/shop/sa/web' }]);
    const headless = service({ clusterIP: 'None', ports: [{ port: 80, targetPort: 443 }] });
    const pods = withBackends([presenting], {
      objects: [...behind.filter((one) => one !== bare), headless, presenting],
    });
    assert.deepEqual(policiesOf(pods)[0]?.names, WEB.names);
  });

  it('outside the cluster must present what the user gives', () => {
    const given = { ...BACKENDS, subjectAltNames: ['spiffe://td/ns/shop/sa/web'] };
    const ip = backend({ endpoints: [{ ip: { address: '10.0.0.1', port: 1 } }], tls: SETTINGS });
    const [target] = policiesOf(withBackends([ip], { gatewayApi: given }));
    assert.deepEqual([target?.hostname, target?.names], ['web.emissary', [{ uri: 'spiffe://td/ns/shop/sa/web' }]]);
  });

  it('is refused, with a code, where something would fail or break', () => {
    const cases: readonly [expected: string, Case][] = [
      ['CustomResourceDefinition ERR_GATEWAY_CRD_MISSING', withBackends([], { unserved: ['Backend'] })],
      ['Backend ERR_GATEWAY_CRD_MISSING', withBackends([backend()], { unserved: ['BackendTLSPolicy'] })],
      ['Backend ERR_TARGET_NAMESPACE', withBackends([backend({}, { namespace: 'shop', annotations: CONSENT })])],
      [
        'Backend ERR_TARGET_NO_CONSENT',
        withBackends([gateway(), PRESENTING, backend({}, { namespace: 'shop' })], {
          gatewayApi: { gateways: SPEC.gateways, backends: BACKENDS.backends },
        }),
      ],
      ['Backend ERR_TARGET_NOT_IN_CLUSTER', withBackends([leadingTo('web.example.com')])],
      [
        'Backend ERR_TARGET_NOT_IN_CLUSTER',
        withBackends([backend({ endpoints: [{ ip: { address: '::1', port: 1 } }] })]),
      ],
      ['Backend ERR_TARGET_NOT_IN_CLUSTER', { ...withBackends([backend()]), ...alias() }],
      ['Backend ERR_TARGET_NO_SERVICE', withBackends([leadingTo('gone.shop.svc.cluster.local')])],
      [
        'Backend ERR_TARGET_NO_PORT',
        withBackends([backend({ endpoints: [{ fqdn: { hostname: 'web.shop.svc', port: 80 } }] })]),
      ],
      [
        'Backend ERR_TARGET_FOREIGN_TLS',
        withBackends([backend({ tls: { clientCertificateRef: { name: 'theirs' } } })]),
      ],
      ['Backend ERR_TARGET_UNSEEN', withBackends([backend()], { hidden: ['EndpointSlice'] })],
      [
        'Backend ERR_TARGET_FOREIGN_POLICY',
        withBackends([backend(), policy({ kind: 'Backend' }, { namespace: 'emissary' })]),
      ],
    ];
    for (const [expected, of] of cases) {
      assert.deepEqual(codesOf(of), [expected]);
      const { verdicts, targets } = judgeCase(of);
      const changed = verdicts.filter(({ outcome }) => 'target' in outcome && !outcome.target.isSet);
      assert.deepEqual([targets, changed], [[], []], expected);
    }
  });

  it('keeps its policy while it is refused, or unselected and used by a route', () => {
    for (const changed of [leadingTo('gone.shop.svc.cluster.local'), without(presenting, 'labels')]) {
      assert.deepEqual(policiesOf(withBackends([changed, written()]))[0]?.names, []);
    }
    const unselected = [without(presenting, 'labels'), written()];
    assert.deepEqual(codesOf(withBackends(unselected)), ['Backend ERR_TARGET_UNSELECTED']);
    const unused = behind.filter(({ kind }) => kind !== 'HTTPRoute');
    assert.deepEqual(policiesOf({ objects: [...unused, ...unselected], gatewayApi: BACKENDS }), []);
    assert.equal(policiesOf(withBackends([written()])).length, 1, 'a route waits for the Backend');
  });

  it('that names the Secret counts as its user, whatever the MeshCertificate selects now', () => {
    const { verdicts } = judgeCase({ objects: [...behind, presenting], config: {} });
    assert.deepEqual(
      verdicts.map(({ route, dependsOn, selected }) => [route.kind, dependsOn?.name, selected]),
      [
        ['Backend', 'istio-identity', false],
        ['Service', undefined, true],
      ],
    );
  });
});

function alias(): Partial<Case> {
  const external = service({ type: 'ExternalName', externalName: 'x' });
  return { objects: [...behind.filter((one) => one !== bare), external, backend()] };
}
