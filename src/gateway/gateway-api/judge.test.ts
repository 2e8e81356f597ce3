import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  clientCertificateRef,
  envoyProxy,
  gateway,
  gatewayClass,
  httpRoute,
  LABELS,
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
} from '../../../test/support/gateway-api-judgement.ts';
import type { TargetRules } from '../../mesh/cluster.ts';
import type { KubeObject } from '../../objects/objects.ts';
import { ownLabels } from '../publication.ts';
import { GATEWAY_API_CODES } from './config.ts';

const set = { backendTLS: { clientCertificateRef, alpnProtocols: ISTIO_PROTOCOLS } };
const all = [gatewayClass(), gateway(), PRESENTING, service(), pod('web-1'), slice(['web-1']), httpRoute()];
const judge = (of: Partial<Case>) => judgeCase({ objects: all, ...of });
const codes = (of: Partial<Case>) => codesOf({ objects: all, ...of });
const policies = (of: Partial<Case>) => policiesOf({ objects: all, ...of });

const classWithProxy = gatewayClass('eg', undefined, {
  ...{ group: 'gateway.envoyproxy.io', kind: 'EnvoyProxy' },
  ...{ name: 'proxy', namespace: 'emissary' },
});
const withOne = (changed: KubeObject): readonly KubeObject[] => [
  ...all.filter(({ kind, metadata }) => kind !== changed.kind || metadata.name !== changed.metadata.name),
  changed,
];
const written = (labels: object = ownLabels(META, {})): KubeObject => {
  const theirs = policy({ sectionName: 'https' });
  return { ...theirs, metadata: { ...theirs.metadata, name: 'istio-web-https', labels: { ...labels } } };
};
const linkerd: TargetRules = {
  ...{ discover: true, listed: [] },
  identify: ({ serviceAccount }) => ({ id: `${serviceAccount}.shop.serviceaccount.identity.linkerd.cluster.local` }),
};

describe('the Gateway API', () => {
  it('requires of a Service the accounts of all its pods, ready or not, and those that are not endpoints yet', () => {
    const [found, ...more] = policies({ objects: [...all, pod('web-2', 'web-new'), pod('other', 'other', 'other')] });
    assert.deepEqual(found, {
      ...{
        kind: 'policy',
        of: 'Service',
        namespace: 'shop',
        name: 'web',
        port: 'https',
        hostname: 'web.shop.svc.cluster.local',
      },
      names: [{ path: '/ns/shop/sa/web' }, { path: '/ns/shop/sa/web-new' }],
    });
    assert.deepEqual(more, []);
  });

  it('accepts the accounts that a Service announces before there is a pod with them', () => {
    const announcing = (accounts: string) =>
      service({}, { annotations: { ...CONSENT, 'meshcert.dev/next-service-accounts': accounts } });
    const of = (accounts: string) => policies({ objects: withOne(announcing(accounts)) })[0]?.names;
    const [web, next] = [{ path: '/ns/shop/sa/web' }, { path: '/ns/shop/sa/web-new' }];
    assert.deepEqual(of('web-new'), [web, next]);
    assert.deepEqual(of(' web, web-new,'), [web, next]);
    assert.deepEqual(of('../../other/sa/x, a/b'), [web], 'only an account of its own namespace');
    assert.deepEqual(codes({ objects: withOne(announcing('a,b,c,d,e')) }), ['Service ERR_TARGET_TOO_MANY']);
  });

  it("requires the service's name of Consul, and the DNS name of the workload as server name of Linkerd", () => {
    assert.deepEqual(policies({ mesh: 'consul' })[0]?.names, [{ sibling: 'web' }]);
    const annotated = pod('web-1');
    const annotations = { 'consul.hashicorp.com/connect-service': 'frontend' };
    const named = withOne({ ...annotated, metadata: { ...annotated.metadata, annotations } });
    assert.deepEqual(policies({ mesh: 'consul', objects: named })[0]?.names, [{ sibling: 'frontend' }]);
    const id = 'web.shop.serviceaccount.identity.linkerd.cluster.local';
    const [target] = policies({ mesh: 'linkerd', rules: linkerd });
    assert.deepEqual([target?.hostname, target?.names], [id, []]);
    const [other] = policies({ mesh: 'linkerd', rules: linkerd, config: { hostname: 'web.example' } });
    assert.deepEqual([other?.hostname, other?.names], ['web.example', [{ dns: id }]]);
  });

  it('takes names that the user gives in place of those of the pods, and then needs no pods', () => {
    const subjectAltNames = ['spiffe://td/ns/shop/sa/web', 'web.shop.example'];
    const objects = all.filter(({ kind }) => kind !== 'Pod');
    const [target] = policies({ objects, mesh: 'spiffe', config: { subjectAltNames } });
    assert.deepEqual(target?.names, [{ uri: subjectAltNames[0] }, { dns: subjectAltNames[1] }]);
  });

  it('writes a policy only after every selected Gateway presents the certificate', () => {
    assert.deepEqual(policies({ objects: withOne(envoyProxy()) }), []);
    const second = { ...gateway({ infrastructure: undefined }), metadata: { ...gateway().metadata, name: 'second' } };
    assert.deepEqual(policies({ objects: [...all, second] }), []);
    assert.deepEqual(codes({ objects: [...all, second] }), ['Gateway ERR_TARGET_NO_PROXY']);
    assert.equal(policies({ objects: [...all, without(second, 'labels')] }).length, 1);
  });

  it("sets in an EnvoyProxy the certificate and what the mesh needs, and leaves a user's other choices", () => {
    const changeOf = (proxy: KubeObject) => {
      const [verdict] = judge({ objects: withOne(proxy) }).verdicts;
      assert.ok(verdict && 'target' in verdict.outcome && !verdict.outcome.target.isSet);
      return verdict.outcome.target.change?.fields;
    };
    assert.deepEqual(changeOf(envoyProxy({ concurrency: 1 })), { spec: set });
    const chosen = envoyProxy({ backendTLS: { alpnProtocols: ['h2'] } });
    assert.deepEqual(changeOf(chosen), { spec: { backendTLS: { clientCertificateRef } } });
  });

  it('sets the EnvoyProxy of a GatewayClass if its labels say that all Gateways of the class may present it', () => {
    const labelled = { ...PRESENTING, metadata: { ...PRESENTING.metadata, labels: LABELS } };
    const objects = [gateway({ infrastructure: {} }), classWithProxy, labelled, service(), pod('web-1')];
    assert.deepEqual(codes({ objects }), []);
    assert.equal(policies({ objects }).length, 1);
  });

  const GRANTING = { clientCertificate: 'Gateway', gateways: { ...SPEC.gateways, namespaces: ['edge'] } };
  const THERE = { namespace: 'edge', annotations: CONSENT };
  const naming = (meta: object) => gateway({ tls: { backend: { clientCertificateRef } } }, { ...THERE, ...meta });
  const grantsOf = (of: Partial<Case>) => judge(of).targets.filter(({ kind }) => kind === 'grant');
  const edgeGrant = (from: readonly string[] = ['edge']): KubeObject => ({
    ...{ apiVersion: 'gateway.networking.k8s.io/v1beta1', kind: 'ReferenceGrant' },
    metadata: { name: 'istio-edge.gateways', namespace: META.namespace, labels: ownLabels(META, {}) },
    spec: { from: from.map((namespace) => ({ group: 'gateway.networking.k8s.io', kind: 'Gateway', namespace })) },
  });

  it('lets a selected Gateway of a named namespace that consents name the Secret, before it does', () => {
    const before = judge({ objects: withOne(gateway({}, THERE)), config: GRANTING });
    assert.deepEqual(before.targets, [{ kind: 'reread' }, { kind: 'grant', namespace: 'edge' }]);
    const [verdict] = before.verdicts;
    assert.ok(verdict && 'target' in verdict.outcome);
    assert.deepEqual(verdict.outcome.target.object.kind, 'ReferenceGrant', 'the Gateway waits for it');
    assert.deepEqual(verdict.outcome.target.change?.fields, { spec: { tls: { backend: { clientCertificateRef } } } });
  });

  it('grants nothing to a Gateway that merely names the Secret, and does not wait for it', () => {
    const everywhere = { ...GRANTING, gateways: { ...SPEC.gateways, namespaces: ['*'] } };
    for (const config of [GRANTING, everywhere]) {
      for (const meta of [{ labels: {}, annotations: {} }, { labels: {} }, { annotations: {} }]) {
        const judged = judge({ objects: withOne(naming(meta)), config });
        assert.deepEqual(judged.targets, [], JSON.stringify([config, meta]));
        assert.deepEqual(
          judged.verdicts.flatMap(({ route, dependsOn }) => (route.kind === 'Gateway' && dependsOn) || []),
          [],
        );
      }
    }
  });

  it('grants nothing by "*": the namespace must be named beside it', () => {
    const among = (...namespaces: string[]) => ({ ...GRANTING, gateways: { ...SPEC.gateways, namespaces } });
    const objects = withOne(naming({}));
    assert.deepEqual(grantsOf({ objects, config: among('*') }), []);
    assert.deepEqual(codes({ objects, config: among('*') }), ['Gateway ERR_TARGET_NAMESPACE']);
    assert.deepEqual(grantsOf({ objects, config: among('*', 'edge') }), [{ kind: 'grant', namespace: 'edge' }]);
    const granted = [...objects, edgeGrant()];
    assert.deepEqual(grantsOf({ objects: granted, config: among('*') }), [], 'also if it was granted before');
  });

  it('keeps what was granted while a Gateway there names the Secret, although it is not selected any more', () => {
    const objects = [...withOne(naming({ labels: {} })), edgeGrant(['other', 'edge'])];
    const judged = judge({ objects, config: GRANTING });
    assert.deepEqual(judged.targets, [{ kind: 'reread' }, { kind: 'grant', namespace: 'edge' }]);
    assert.equal(judged.verdicts[0]?.dependsOn?.name, 'istio-edge.gateways');
    assert.deepEqual(
      grantsOf({ objects: [...withOne(gateway({}, { namespace: 'edge' })), edgeGrant()], config: GRANTING }),
      [],
    );
    const forged = { ...edgeGrant(), metadata: { name: 'forged', namespace: META.namespace } };
    assert.deepEqual(grantsOf({ objects: [...withOne(naming({ labels: {} })), forged], config: GRANTING }), []);
  });

  it('makes Envoy Gateway read a Secret again that a Gateway names, and others not', () => {
    const objects = withOne(gateway());
    const config = { clientCertificate: 'Gateway', controllers: ['kgateway.dev/kgateway'] };
    assert.ok(judge({ objects, config }).targets.some(({ kind }) => kind === 'reread'));
    const other = [
      ...objects.filter(({ kind }) => kind !== 'GatewayClass'),
      gatewayClass('eg', 'kgateway.dev/kgateway'),
    ];
    assert.deepEqual(judge({ objects: other, config }).targets, []);
    assert.deepEqual(codes({ objects: other, config }), []);
  });

  it('refuses, with a code, what would fail or break something', () => {
    const elsewhere = gateway({}, { namespace: 'edge' });
    const consenting = gateway({}, { namespace: 'edge', annotations: CONSENT });
    const everywhere = { gateways: { ...SPEC.gateways, namespaces: ['*'] } };
    const withClassProxy = [...withOne(gateway({ infrastructure: {} })), classWithProxy];
    const six = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => pod(name, name));
    const cases: readonly [expected: string, Partial<Case>][] = [
      ['Gateway ERR_TARGET_CLASS', { objects: all.filter(({ kind }) => kind !== 'GatewayClass') }],
      ['Gateway ERR_TARGET_CLASS', { objects: withOne(gatewayClass('eg', 'traefik.io/gateway-controller')) }],
      ['Gateway ERR_TARGET_NO_PROXY', { objects: all.filter(({ kind }) => kind !== 'EnvoyProxy') }],
      ['Gateway ERR_TARGET_NO_PROXY', { objects: withOne(gateway({ infrastructure: {} })) }],
      ['Gateway ERR_TARGET_UNSEEN', { hidden: ['GatewayClass'] }],
      [
        'Gateway ERR_TARGET_OVERRIDDEN',
        { objects: withOne(gateway({ tls: { backend: { clientCertificateRef: { name: 'theirs' } } } })) },
      ],
      [
        'EnvoyProxy ERR_TARGET_FOREIGN_TLS',
        { objects: withOne(envoyProxy({ backendTLS: { clientCertificateRef: { name: 'theirs' } } })) },
      ],
      ['Gateway ERR_GATEWAY_CRD_MISSING', { unserved: ['EnvoyProxy'] }],
      ['Service ERR_TARGET_NO_CONSENT', { objects: withOne(without(service(), 'annotations')) }],
      ['Service ERR_TARGET_NOT_IN_CLUSTER', { objects: withOne(service({ type: 'ExternalName', externalName: 'x' })) }],
      ['Service ERR_TARGET_PORT_NAME', { objects: withOne(service({ ports: [{ port: 443 }] })) }],
      ['Service ERR_TARGET_PORT_NAME', { config: { services: { ...SPEC.services, ports: ['grpc'] } } }],
      ['Service ERR_TARGET_NO_ENDPOINTS', { objects: all.filter(({ kind }) => !/Pod|Slice/.test(kind)) }],
      ['Service ERR_TARGET_NO_POD', { objects: withOne(slice(['web-1', 'gone'])) }],
      ['Service ERR_TARGET_NO_ACCOUNT', { objects: withOne(pod('web-1', '')) }],
      ['Service ERR_TARGET_NO_PEER', { mesh: 'spiffe' }],
      ['Service ERR_TARGET_TOO_MANY', { objects: [...all.filter(({ kind }) => !/Pod|Slice/.test(kind)), ...six] }],
      ['Service ERR_TARGET_DISAGREE', { mesh: 'linkerd', rules: linkerd, objects: [...all, pod('web-2', 'other')] }],
      ['Service ERR_TARGET_FOREIGN_POLICY', { objects: [...all, policy({ sectionName: 'https' })] }],
      ['Service ERR_TARGET_FOREIGN_POLICY', { objects: [...all, policy({})] }],
      ['Service ERR_TARGET_UNSEEN', { hidden: ['Pod'] }],
      ['Gateway ERR_TARGET_NO_CONSENT', { objects: withOne(elsewhere), config: everywhere }],
      ['Gateway ERR_TARGET_NAMESPACE', { objects: withOne(consenting), config: everywhere }],
      ['Gateway ERR_TARGET_NO_PROXY', { objects: withClassProxy }],
      ['Service ERR_TARGET_MESH_POLICY', { objects: [...all, gatewayClass('istio', 'istio.io/gateway-controller')] }],
    ];
    for (const [expected, of] of cases) {
      assert.deepEqual(codes(of), [expected]);
      assert.deepEqual(policies(of), [], expected);
      for (const { outcome } of judge(of).verdicts) {
        // doctor shows what follows the last semicolon as the next step.
        if ('code' in outcome) assert.match(outcome.message, /; (?!or )[^;]+$/);
      }
    }
    const covered = new Set(cases.map(([expected]) => expected.split(' ')[1]));
    const others = ['ERR_TARGET_NO_SERVICE', 'ERR_TARGET_NO_PORT', 'ERR_TARGET_UNSELECTED'];
    assert.deepEqual(
      GATEWAY_API_CODES.filter((code) => !covered.has(code)),
      others,
    );
  });

  it('gives no Gateway the certificate where policies are not served', () => {
    const of = { objects: withOne(envoyProxy()), unserved: ['BackendTLSPolicy'] };
    assert.deepEqual(codes(of), ['Gateway ERR_GATEWAY_CRD_MISSING', 'Service ERR_GATEWAY_CRD_MISSING']);
    assert.deepEqual(policies(of), []);
  });

  it('keeps a policy as it is while its Service is refused, or unselected and used by a route', () => {
    const before = written();
    for (const changed of [slice(['gone']), without(service(), 'labels'), service({ ports: [{ port: 443 }] })]) {
      const [target] = policies({ objects: [...withOne(changed), before] });
      assert.deepEqual([target?.name, target?.hostname, target?.names], ['web', 'web', []], changed.kind);
    }
    const unselected = withOne(without(service(), 'labels'));
    assert.deepEqual(codes({ objects: [...unselected, before] }), ['Service ERR_TARGET_UNSELECTED']);
    const unused = unselected.filter(({ kind }) => kind !== 'HTTPRoute');
    assert.deepEqual(policies({ objects: [...unused, before] }), []);
    assert.equal(policies({ objects: [...unused, before], hidden: ['HTTPRoute'] }).length, 1, 'nobody can tell');
    const otherPort = [...unused, httpRoute('web', 80), before];
    assert.deepEqual(policies({ objects: otherPort }), []);
    const gone = all.filter(({ kind }) => kind !== 'Service');
    assert.equal(policies({ objects: [...gone, before] }).length, 1, 'a route waits for the Service');
  });

  it('does not take a policy for another port, or of another Service, for a conflict', () => {
    assert.deepEqual(codes({ objects: [...all, policy({ sectionName: 'admin' })] }), []);
    assert.deepEqual(codes({ objects: [...all, policy({ name: 'api' })] }), []);
    assert.deepEqual(codes({ objects: [...all, policy({}, { namespace: 'other' })] }), []);
  });
});
