import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as made from '../../test/support/onboard-cluster.ts';
import { planFor } from '../../test/support/onboard-plan.ts';
import { gateways } from '../gateways.ts';
import { fields, type KubeObject, keyOf, describe as nameOf, refOf } from '../objects/objects.ts';
import { planOffboarding, refuseToLeave } from './offboard.ts';
import type { OnboardPlan } from './plan.ts';

const GATEWAY = [...made.gatewayApi(), ...made.istiod()];
const WEB = made.app('istio', 'web', 'shop', 443);

const outcomes = ({ verdicts }: OnboardPlan) =>
  verdicts.map(({ upstream, outcome }) =>
    [upstream.route.metadata.name, outcome.kind, outcome.kind === 'stay' ? outcome.code : outcome.mesh].join(' '),
  );
const messages = ({ verdicts }: OnboardPlan) =>
  verdicts.map(({ outcome }) => (outcome.kind === 'stay' ? outcome.message : ''));
const titles = ({ steps, moves }: OnboardPlan) =>
  [...steps, ...moves].map(({ action, object }) => `${action} ${nameOf(refOf(object))}`);
const refused = (promise: Promise<unknown>, expected: RegExp) =>
  assert.rejects(promise, (error: { code: string; message: string }) => {
    assert.match(`${error.code}: ${error.message}`, expected);
    return true;
  });

/** The cluster after a plan was carried out. */
function after(objects: readonly KubeObject[], { steps, moves }: OnboardPlan): KubeObject[] {
  const changed = new Map(objects.map((object) => [keyOf(refOf(object)), object]));
  for (const { object } of [...steps, ...moves]) changed.set(keyOf(refOf(object)), made.applied(object));
  return [...changed.values()];
}

describe('an onboarding plan for Envoy Gateway', () => {
  it('leads each route to Backends that stand in for its Services, and lets it name them', async () => {
    const plan = await planFor([...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])]);
    assert.deepEqual(titles(plan), [
      'create ServiceAccount emissary/edge',
      'create ServiceAccount emissary/meshcert',
      'create Role emissary/meshcert-onboard.emissary',
      'create RoleBinding emissary/meshcert-onboard.emissary',
      'create ClusterRole meshcert-onboard.emissary',
      'create ClusterRoleBinding meshcert-onboard.emissary',
      'create Role shop/meshcert-onboard.emissary',
      'create RoleBinding shop/meshcert-onboard.emissary',
      'create MeshCertificate emissary/istio',
      'create Backend emissary/web-shop-443',
      'create ReferenceGrant emissary/web-shop-443',
      'change HTTPRoute shop/web',
    ]);
    assert.deepEqual(fields(plan.joined[0]?.document?.spec), {
      istio: { ca: { address: 'istiod.istio-system.svc:15012', serviceAccount: 'edge' } },
      gatewayApi: {
        clientCertificate: 'Backend',
        backends: { selector: { matchLabels: { 'meshcert.dev/mesh': 'istio' } }, namespaces: ['shop'] },
      },
    });
    const [move] = plan.moves;
    assert.deepEqual(fields(move?.patch), {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'HTTPRoute',
      metadata: { name: 'web', namespace: 'shop' },
      spec: {
        rules: [
          {
            matches: [{ path: { type: 'PathPrefix', value: '/web' } }],
            backendRefs: [
              {
                group: 'gateway.envoyproxy.io',
                kind: 'Backend',
                name: 'web-shop-443',
                namespace: 'emissary',
                weight: 1,
              },
            ],
          },
        ],
      },
    });
    assert.deepEqual(
      plan.verdicts.map(({ outcome }) => outcome.kind === 'move' && outcome.to?.destinations),
      [
        [
          {
            address: 'web.shop.svc.cluster.local:443',
            sni: 'web.shop.svc.cluster.local',
            service: { namespace: 'shop', name: 'web' },
            names: [{ path: '/ns/shop/sa/web' }],
          },
        ],
      ],
    );
  });

  it('has nothing left to do when it was carried out, and follows routes that come later', async () => {
    const before = [...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])];
    const objects = after(before, await planFor(before));
    const again = await planFor(objects);
    assert.deepEqual(outcomes(again), ['web done istio']);
    assert.deepEqual([again.moves, again.steps.filter(({ action }) => action !== 'none')], [[], []]);
    const more = await planFor([
      ...objects,
      ...made.app('istio', 'pay', 'bank', 443),
      made.httpRoute('pay', 'bank', ['pay:443']),
    ]);
    assert.deepEqual(outcomes(more), ['pay move istio', 'web done istio']);
    const document = more.steps.find(({ object }) => object.kind === 'MeshCertificate')?.object;
    assert.deepEqual(fields(fields(fields(document?.spec).gatewayApi).backends).namespaces, ['bank', 'shop']);
  });

  it('leads a moved route to no further Service that is not in the mesh', async () => {
    const before = [
      ...GATEWAY,
      ...WEB,
      ...made.app('none', 'plain', 'shop'),
      made.httpRoute('web', 'shop', ['web:443']),
    ];
    const more = { backendRefs: [{ name: 'plain', port: 80 }] };
    const objects = after(before, await planFor(before)).map((object) => {
      if (object.kind !== 'HTTPRoute') return object;
      const spec = fields(object.spec);
      return { ...object, spec: { ...spec, rules: [...(spec.rules as readonly object[]), more] } };
    });
    const plan = await planFor(objects);
    assert.deepEqual(outcomes(plan), ['web stay ERR_TARGET_DISAGREE']);
    assert.deepEqual(plan.moves, []);
  });

  it('lets the routes of other Gateways go on leading to the Backends that it needs', async () => {
    const before = [...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])];
    const objects = after(before, await planFor(before));
    const far = made.httpRoute('far', 'far', [], {
      parentRefs: [{ name: 'second', namespace: 'emissary' }],
      rules: [{ backendRefs: [{ name: 'web', namespace: 'shop', port: 443 }] }],
    });
    const plan = await planFor([...objects, ...made.gatewayApi('second'), far], { gateway: 'second' });
    assert.deepEqual(outcomes(plan), ['far move istio']);
    const grant = plan.steps.find(({ object }) => object.kind === 'ReferenceGrant')?.object;
    assert.deepEqual(
      (fields(grant?.spec).from as { namespace: string }[]).map(({ namespace }) => namespace),
      ['far', 'shop'],
    );
  });

  it('makes Backends that name the certificate before anybody else does', async () => {
    const plan = await planFor([...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])]);
    const backend = plan.steps.find(({ object }) => object.kind === 'Backend')?.object;
    const clientCertificateRef = { group: '', kind: 'Secret', name: 'istio-identity', namespace: 'emissary' };
    assert.deepEqual(fields(backend?.spec).tls, { clientCertificateRef });
  });

  it('lets routes of 40 namespaces lead to a Backend, by ReferenceGrants of at most 16 entries', async () => {
    const places = Array.from({ length: 40 }, (_, at) => `far${String(at).padStart(2, '0')}`);
    const routes = places.map((namespace) =>
      made.httpRoute('web', namespace, [], {
        parentRefs: [{ name: 'edge', namespace: 'emissary' }],
        rules: [{ backendRefs: [{ name: 'web', namespace: 'shop', port: 443 }] }],
      }),
    );
    const plan = await planFor([...GATEWAY, ...WEB, ...routes]);
    const grants = plan.steps.filter(({ object }) => object.kind === 'ReferenceGrant').map(({ object }) => object);
    assert.deepEqual(
      grants.map(({ metadata }) => metadata.name),
      ['web-shop-443', 'web-shop-443.2', 'web-shop-443.3'],
    );
    const from = grants.map(({ spec }) => fields(spec).from as { namespace: string }[]);
    assert.deepEqual(
      from.map(({ length }) => length),
      [16, 16, 8],
    );
    assert.deepEqual(
      from.flat().map(({ namespace }) => namespace),
      places,
    );
  });

  it('serves several meshes behind one Gateway, Linkerd by the server name', async () => {
    const plan = await planFor([
      ...GATEWAY,
      made.linkerdConfig(),
      ...made.consulServer(),
      ...WEB,
      ...made.app('linkerd', 'lin', 'shop', 443),
      ...made.app('consul', 'con', 'shop', 443),
      ...['web', 'lin', 'con'].map((name) => made.httpRoute(name, 'shop', [`${name}:443`])),
    ]);
    assert.deepEqual(outcomes(plan), ['con move consul', 'lin move linkerd', 'web move istio']);
    const [con, lin] = plan.verdicts.map(({ outcome }) =>
      outcome.kind === 'move' ? outcome.to?.destinations[0] : undefined,
    );
    assert.deepEqual(con?.names, [{ sibling: 'con' }]);
    assert.equal(lin?.sni, 'lin.shop.serviceaccount.identity.linkerd.cluster.local');
  });

  it('leaves routes whose pods are not in one mesh, and those that it cannot lead elsewhere, and says why', async () => {
    const grpc = { ...made.httpRoute('grpc', 'shop', ['web:443']), kind: 'GRPCRoute' };
    const other = { name: 'other', namespace: 'emissary' };
    const objects = [
      ...GATEWAY,
      ...made.gatewayApi('other', 'emissary', 'traefik.io/gateway-controller'),
      ...WEB,
      ...made.app('none', 'plain', 'shop'),
      grpc,
      made.httpRoute('mixed', 'shop', ['web:443', 'plain:80']),
      made.httpRoute('plain', 'shop', ['plain:80']),
      made.httpRoute('shared', 'shop', ['web:443'], {
        parentRefs: [{ name: 'edge', namespace: 'emissary' }, other],
      }),
      made.httpRoute('gone', 'shop', ['gone:80']),
      made.httpRoute('redirect', 'shop', []),
    ];
    const plan = await planFor(objects);
    assert.deepEqual(outcomes(plan), [
      'gone stay ERR_TARGET_NO_SERVICE',
      'grpc stay ERR_TARGET_PROTOCOL',
      'mixed stay ERR_TARGET_DISAGREE',
      'plain stay ERR_TARGET_UNMESHED',
      'shared stay ERR_TARGET_CLASS',
    ]);
    assert.match(messages(plan)[4] ?? '', /Gateway emissary\/other, which is no Gateway of Envoy Gateway/);
  });

  it('does not take a Backend that onboard did not create', async () => {
    const backend = {
      apiVersion: 'gateway.envoyproxy.io/v1alpha1',
      kind: 'Backend',
      metadata: { name: 'web-shop-443', namespace: 'emissary' },
    };
    const plan = await planFor([...GATEWAY, ...WEB, backend, made.httpRoute('web', 'shop', ['web:443'])]);
    assert.deepEqual(outcomes(plan), ['web stay ERR_TARGET_NAME']);
    assert.ok(!titles(plan).some((title) => title.includes('Backend ')));
  });

  it('says what is missing where Envoy Gateway has no Backends', async () => {
    const objects = [...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])];
    const plan = await planFor(objects, {}, { unserved: new Set(['Backend']) });
    assert.deepEqual(outcomes(plan), ['web stay ERR_GATEWAY_CRD_MISSING']);
    assert.match(messages(plan)[0] ?? '', /extensionApis\.enableBackend/);
  });

  const certificate = (spec: object, labels = {}): KubeObject => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name: 'mesh', namespace: 'emissary', labels },
    spec: { istio: { ca: { serviceAccount: 'emissary-ingress' } }, ...spec },
  });
  const moving = [made.gateway(), ...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])];

  it('adds the gateway to a MeshCertificate that serves another one, which stays served', async () => {
    for (const [given, kept] of [
      [{}, { tlsContext: {} }],
      [{ mappings: { selector: { matchLabels: { mesh: 'x' } } } }, {}],
      [{ tlsContext: { sni: 'x.y' } }, {}],
    ] as const) {
      const plan = await planFor([...moving, certificate(given)], { gateway: 'edge' });
      const step = plan.steps.find(({ object }) => object.kind === 'MeshCertificate');
      assert.deepEqual(step?.patch, {
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        metadata: { name: 'mesh', namespace: 'emissary' },
        spec: {
          ...kept,
          gatewayApi: {
            clientCertificate: 'Backend',
            backends: { selector: { matchLabels: { 'meshcert.dev/mesh': 'mesh' } }, namespaces: ['shop'] },
          },
        },
      });
      assert.deepEqual(Object.keys(plan.joined[0]?.certificate.spec.gateways ?? {}).sort(), ['emissary', 'gatewayApi']);
      assert.deepEqual(outcomes(plan), ['web move istio']);
      assert.ok(!titles(plan).includes('create ServiceAccount emissary/edge'));
      const again = await planFor(after([...moving, certificate(given)], plan), { gateway: 'edge' });
      assert.deepEqual(again.moves, []);
      assert.ok(again.steps.every(({ action }) => action === 'none' || action === 'keep'));
    }
  });

  it('takes no rights from the agent that it needs for other MeshCertificates', async () => {
    const other = {
      ...certificate({}),
      metadata: { name: 'other', namespace: 'emissary' },
      spec: { file: { directory: '/x' } },
    };
    const plan = await planFor([...moving, other], { gateway: 'edge' });
    const role = plan.steps.find(({ object }) => nameOf(refOf(object)) === 'Role emissary/meshcert-onboard.emissary');
    assert.match(JSON.stringify(role?.object), /"istio-identity","other-ca","other-identity"/);
  });

  it('uses a MeshCertificate of the user that has the gateway already as it is', async () => {
    const services = {
      gateways: { selector: { matchLabels: { a: 'b' } } },
      services: { selector: { matchLabels: { a: 'b' } } },
    };
    const plan = await planFor([...moving, certificate({ gatewayApi: services })], { gateway: 'edge' });
    assert.deepEqual(outcomes(plan), ['web stay ERR_TARGET_UNSELECTED']);
    assert.match(messages(plan)[0] ?? '', /MeshCertificate mesh has no gatewayApi\.backends/);
    assert.equal(plan.steps.find(({ object }) => object.kind === 'MeshCertificate')?.action, 'keep');
  });

  it('refuses where Envoy Gateway does not read Backends, before anything is changed', async () => {
    const configuration = (text: string): KubeObject => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'envoy-gateway-config', namespace: 'envoy-gateway-system' },
      data: { 'envoy-gateway.yaml': text },
    });
    const objects = [...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])];
    const withConfiguration = (text: string) => {
      const gatewayObjects = [...made.snapshotOf(objects).gatewayObjects, configuration(text)];
      return planFor(objects, {}, { gatewayObjects });
    };
    await refused(
      withConfiguration('extensionApis:\n  enableBackend: false\n'),
      /^ERR_ONBOARD_UNSUPPORTED: .*set extensionApis\.enableBackend: true in ConfigMap envoy-gateway-system\/envoy-gateway-config/,
    );
    assert.deepEqual(outcomes(await withConfiguration('extensionApis:\n  enableBackend: true\n')), ['web move istio']);
  });

  it('lists the gateways to choose from, and refuses another implementation with the next step', async () => {
    const both = [made.gateway(), ...GATEWAY, ...made.gatewayApi('far', 'far', 'traefik.io/gateway-controller')];
    await refused(
      planFor(both),
      /^ERR_ONBOARD_WHICH_GATEWAY: .*: Deployment emissary\/emissary-ingress, Gateway emissary\/edge; name one with --gateway$/,
    );
    assert.equal((await planFor(both, { gateway: 'emissary/edge' })).gateway.gateway.kind, 'gatewayApi');
    assert.equal((await planFor(both, { gateway: 'emissary-ingress' })).gateway.gateway.kind, 'emissary');
    await refused(
      planFor(both, { gateway: 'far/far' }),
      /^ERR_ONBOARD_UNSUPPORTED: Gateway far\/far .*traefik\.io\/gateway-controller.*docs\/gateway-api\.md/,
    );
    await refused(planFor([...made.gatewayApi('a', 'b', 'x/y'), ...made.istiod()]), /^ERR_ONBOARD_UNSUPPORTED: /);
  });
});

describe('an offboarding plan', () => {
  it('takes no rights away while a MeshCertificate that stays is not understood', async () => {
    const before = [...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])];
    const other = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', spec: { unknown: {} } };
    const metadata = { name: 'other', namespace: 'emissary' };
    const objects = [...after(before, await planFor(before)), { ...other, metadata }];
    const plan = (needed: readonly KubeObject[] | undefined) =>
      planOffboarding(
        made.snapshotOf(objects),
        'emissary',
        ['istio'],
        { ...made.nothingElse, needed: () => needed },
        gateways,
      );
    assert.deepEqual(plan(undefined).grants.steps, []);
    assert.equal(plan([]).grants.steps.filter(({ action }) => action === 'delete').length, 6);
  });
});

describe('an offboarding plan for Envoy Gateway', () => {
  const gone = (objects: readonly KubeObject[]) =>
    planOffboarding(made.snapshotOf(objects), 'emissary', [], made.nothingElse, gateways).leaving;

  it('leads routes back to their Services, with the changes that were made to them meanwhile', async () => {
    const before = [...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443'])];
    const objects = after(before, await planFor(before)).map((object) =>
      object.kind === 'HTTPRoute' ? { ...object, spec: { ...fields(object.spec), hostnames: ['shop.test'] } } : object,
    );
    const [leaving, ...others] = gone(objects);
    assert.deepEqual([others, leaving?.inUse], [[], []]);
    assert.deepEqual(
      leaving?.releases.map(({ how, diff }) => [how, diff.filter((line) => !line.startsWith(' '))]),
      [
        [
          'lead back',
          [
            '-         - group: gateway.envoyproxy.io',
            '-           kind: Backend',
            '-           name: web-shop-443',
            '-           namespace: emissary',
            '+         - group: ""',
            '+           kind: Service',
            '+           name: web',
            '+           port: 443',
          ],
        ],
      ],
    );
    assert.deepEqual(
      leaving?.standIns.map((one) => nameOf(refOf(one))),
      ['Backend emissary/web-shop-443', 'ReferenceGrant emissary/web-shop-443'],
    );
  });

  it('does not delete a Secret that a Gateway of the user still names', () => {
    const [eg, edge, ...rest] = made.gatewayApi();
    assert.ok(eg && edge);
    const tls = { backend: { clientCertificateRef: { group: '', kind: 'Secret', name: 'mesh-identity' } } };
    const naming = { ...edge, spec: { ...fields(edge.spec), tls } };
    const certificate = (deletionPolicy: string) => ({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'mesh', namespace: 'emissary' },
      spec: { istio: {}, deletionPolicy },
    });
    const leaving = (deletionPolicy: string) => gone([eg, naming, ...rest, certificate(deletionPolicy)]);
    const named = (deletionPolicy: string) => leaving(deletionPolicy).flatMap((one) => one.naming);
    assert.deepEqual(named('Retain'), []);
    assert.deepEqual(named('Delete'), [naming]);
    assert.throws(() => refuseToLeave(leaving('Delete')), {
      code: 'ERR_OFFBOARD_IN_USE',
      message:
        /^Gateway emissary\/edge still name a Secret .*; remove that field there, and the labels by which they are selected, and run this again$/,
    });
  });

  it('is blocked by a route that leads to what onboard did not create and the agent verifies', () => {
    const policy = {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'BackendTLSPolicy',
      metadata: { name: 'istio-web-https', namespace: 'shop', labels: { 'meshcert.dev/owner': 'emissary.istio' } },
      spec: {
        targetRefs: [{ group: '', kind: 'Service', name: 'web', sectionName: 'https' }],
        validation: { hostname: 'web.shop.svc.cluster.local' },
      },
    };
    const [leaving] = gone([...GATEWAY, ...WEB, made.httpRoute('web', 'shop', ['web:443']), policy]);
    assert.deepEqual(
      leaving?.inUse.map(({ route }) => nameOf(refOf(route))),
      ['HTTPRoute shop/web'],
    );
  });
});
