import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import * as made from '../../test/support/onboard-cluster.ts';
import { planFor } from '../../test/support/onboard-plan.ts';
import { gateways } from '../gateways.ts';
import { fields, type KubeObject, keyOf, describe as nameOf, refOf } from '../objects/objects.ts';
import { planOffboarding } from './offboard.ts';
import { showFindings } from './onboard.ts';
import { type OnboardPlan, planAsYaml, showCost, showPlan } from './plan.ts';

const ISTIO = [made.gateway(), ...made.istiod()];
const LINKERD = [made.gateway(), made.linkerdConfig()];

/** The cluster after a plan was carried out. */
function after(objects: readonly KubeObject[], plan: OnboardPlan): KubeObject[] {
  const changed = new Map(objects.map((object) => [keyOf(refOf(object)), object]));
  for (const { action, object } of [...plan.steps, ...plan.moves]) {
    if (action !== 'keep') changed.set(keyOf(refOf(object)), made.applied(object));
  }
  for (const { certificate } of plan.joined) {
    for (const { outcome } of plan.verdicts) {
      if (outcome.kind === 'stay') continue;
      const { namespace = '' } = certificate.metadata;
      const metadata = {
        name: outcome.target.object.name,
        namespace,
        labels: { 'meshcert.dev/owner': `${namespace}.${outcome.mesh}` },
      };
      const context = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext', metadata };
      changed.set(keyOf(refOf(context)), context);
    }
  }
  return [...changed.values()];
}

const specOf = (plan: OnboardPlan, mesh: string) =>
  fields(plan.joined.find((one) => one.mesh === mesh)?.document?.spec);

const outcomes = (plan: OnboardPlan) =>
  plan.verdicts.map(({ upstream, outcome }) => {
    const detail = outcome.kind === 'stay' ? outcome.code : outcome.target.object.name;
    return [upstream.route.metadata.name, outcome.kind, detail];
  });

const refusal = (promise: Promise<unknown>) =>
  promise.then(
    () => assert.fail('it was not refused'),
    ({ code, message }: { code: string; message: string }) => `${code}: ${message}`,
  );

describe('an onboarding plan', () => {
  it('has rights first, then the MeshCertificates, then the objects that send requests', async () => {
    const plan = await planFor([
      ...ISTIO,
      ...made.app('istio', 'web', 'shop'),
      made.mapping('web', 'emissary', { service: 'web.shop' }),
    ]);
    assert.deepEqual(
      [...plan.steps, ...plan.moves].map(({ action, object }) => `${action} ${nameOf(refOf(object))}`),
      [
        'create ServiceAccount emissary/meshcert',
        'create Role emissary/meshcert-onboard.emissary',
        'create RoleBinding emissary/meshcert-onboard.emissary',
        'create MeshCertificate emissary/istio',
        'change Mapping emissary/web',
      ],
    );
    assert.deepEqual(specOf(plan, 'istio').istio, {
      ca: { address: 'istiod.istio-system.svc:15012', serviceAccount: 'emissary-ingress' },
    });
  });

  it('needs no rights in the namespaces of routes that are not moved', async () => {
    const shops = ['shop', 'bank'].flatMap((of) => [
      ...made.app('istio', 'web', of),
      made.mapping('web', of, { service: 'web' }),
    ]);
    const plan = await planFor([...ISTIO, ...shops], { routes: ['shop/web'] });
    const places = plan.steps
      .filter(({ object }) => object.kind === 'Role')
      .map(({ object }) => object.metadata.namespace);
    assert.deepEqual(places.sort(), ['emissary', 'shop']);
    assert.deepEqual(outcomes(plan), [
      ['web', 'stay', 'ERR_TARGET_UNSELECTED'],
      ['web', 'move', 'istio'],
    ]);
  });

  it('contains the definition if the API server does not know MeshCertificates, and the agent on request', async () => {
    const plan = await planFor(ISTIO, { image: 'registry.example/meshcert:1' }, { defined: false });
    assert.equal(plan.steps[0]?.object.kind, 'CustomResourceDefinition');
    const agent = plan.steps.find(({ object }) => object.kind === 'Deployment');
    assert.match(JSON.stringify(agent?.object), /registry\.example\/meshcert:1/);
  });

  const withVolume = (volume: object): KubeObject => {
    const workload = structuredClone(made.gateway()) as unknown as { spec: { template: { spec: object } } };
    Object.assign(workload.spec.template.spec, { volumes: [volume] });
    return workload as unknown as KubeObject;
  };
  const CERTS = { name: 'certs', csi: { driver: 'spiffe.csi.cert-manager.io', readOnly: true } };
  const podOf = (plan: OnboardPlan) =>
    fields(
      fields(fields(plan.steps.find(({ object }) => object.kind === 'Deployment')?.object.spec).template).spec,
    ) as { volumes?: unknown; containers: readonly { volumeMounts?: unknown }[] };

  it('takes files only where no mesh was found, or where they are asked for', async () => {
    const meshes = (plan: OnboardPlan) => plan.joined.map(({ mesh }) => mesh);
    const both = [withVolume(CERTS), ...made.istiod()];
    assert.deepEqual(meshes(await planFor(both)), ['istio']);
    assert.deepEqual(meshes(await planFor(both, { meshes: ['file'] })), ['file']);
    const alone = await planFor([withVolume(CERTS)]);
    assert.deepEqual(meshes(alone), ['file']);
    assert.deepEqual(specOf(alone, 'file').file, { directory: '/var/run/secrets/meshcert/certs', layout: 'tls' });
    const directories = new Map([['/var/run/secrets/meshcert/x', ['tls.crt', 'tls.key', 'ca.crt']]]);
    assert.deepEqual(meshes(await planFor(ISTIO, {}, { directories })), ['istio', 'file']);
  });

  it('mounts in the agent what the mesh needs there', async () => {
    const image = 'registry.example/meshcert:1';
    const pod = podOf(await planFor([withVolume(CERTS)], { image }));
    assert.deepEqual(pod.volumes, [CERTS]);
    assert.deepEqual(pod.containers[0]?.volumeMounts, [
      { name: 'certs', mountPath: '/var/run/secrets/meshcert/certs', readOnly: true },
    ]);
    const without = podOf(await planFor(ISTIO, { image }));
    assert.deepEqual([without.volumes, without.containers[0]?.volumeMounts], [undefined, undefined]);
  });

  it('writes https and the intended port in the same write that names the context', async () => {
    const services = ['web', 'http://web.shop:8080', 'https://web.shop', 'web.shop:80'];
    const mappings = services.map((service, i) => made.mapping(`m${i}`, 'shop', { service }));
    const web = [...made.app('istio', 'web', 'shop')];
    const [front, ...rest] = web;
    const ports = [80, 8080, 443].map((port) => ({ name: 'http', port }));
    const wide = { ...front, spec: { ports } } as KubeObject;
    const plan = await planFor([...ISTIO, wide, ...rest, ...mappings]);
    assert.deepEqual(
      plan.moves.map(({ object }) => [object.spec]).map(([spec]) => [fields(spec).service, fields(spec).tls]),
      [
        ['https://web:80', 'istio'],
        ['https://web.shop:8080', 'istio'],
        ['https://web.shop:443', 'istio'],
        ['https://web.shop:80', 'istio'],
      ],
    );
  });

  it('ignores Mappings that do not concern a mesh, and says why', async () => {
    const plan = await planFor([
      ...ISTIO,
      ...made.app('none', 'plain', 'shop'),
      ...made.app('ambient', 'calm', 'shop'),
      ...made.app('linkerd', 'other', 'shop'),
      ...made.app('istio', 'taken', 'shop'),
      made.mapping('a', 'shop', { service: 'plain' }),
      made.mapping('b', 'shop', { service: 'calm' }),
      made.mapping('c', 'shop', { service: 'other' }),
      made.mapping('d', 'shop', { service: 'taken:80', tls: 'somebody-elses' }),
      made.mapping('e', 'shop', { service: 'https://api.example.com' }),
    ]);
    assert.deepEqual(outcomes(plan), [
      ['a', 'stay', 'ERR_TARGET_UNMESHED'],
      ['b', 'stay', 'ERR_TARGET_AMBIENT'],
      ['c', 'stay', 'ERR_TARGET_OTHER_MESH'],
      ['d', 'stay', 'ERR_TARGET_FOREIGN_TLS'],
      ['e', 'stay', 'ERR_TARGET_NOT_IN_CLUSTER'],
    ]);
    assert.deepEqual(plan.moves, []);
  });

  it('gives Linkerd a context for each account behind Mappings, before any Mapping needs it', async () => {
    const plan = await planFor([
      ...LINKERD,
      ...made.app('linkerd', 'web', 'shop'),
      ...made.app('linkerd', 'pay', 'bank', 443),
      made.mapping('web', 'shop', { service: 'web' }),
      made.mapping('pay', 'bank', { service: 'https://pay' }),
    ]);
    assert.deepEqual(fields(specOf(plan, 'linkerd').linkerd).targets, [
      { serviceAccount: 'pay', namespace: 'bank' },
      { serviceAccount: 'web', namespace: 'shop' },
    ]);
    assert.deepEqual(outcomes(plan), [
      ['pay', 'move', 'linkerd-pay-bank'],
      ['web', 'move', 'linkerd-web-shop'],
    ]);
    assert.deepEqual(fields(specOf(plan, 'linkerd').mappings).namespaces, ['bank', 'shop']);
  });

  it('configures Consul as the chart set it up, with the service named after the account if ACLs are on', async () => {
    const objects = [made.gateway(), ...made.consulServer({ tls: true, acls: true })];
    const certificates = new Map([['consul/consul-ca-cert', 'PEM']]);
    const plan = await planFor(objects, {}, { certificates });
    assert.deepEqual(specOf(plan, 'consul').consul, {
      service: 'emissary-ingress',
      datacenter: 'dc1',
      grpc: {
        addresses: ['consul-server.consul.svc:8502'],
        tls: { ca: { inline: 'PEM' }, serverName: 'server.dc1.consul' },
      },
      auth: {
        login: {
          method: 'consul-k8s-auth-method',
          serviceAccount: 'emissary-ingress',
          audience: 'https://kubernetes.default.svc.cluster.local',
        },
      },
    });
  });

  it('gives its objects the id and the labels without which the gateway would ignore them', async () => {
    const env = { AMBASSADOR_ID: 'edge', AMBASSADOR_LABEL_SELECTOR: 'team=web,tier==front' };
    const mapping = made.mapping('web', 'emissary', { service: 'web.shop', ambassador_id: ['edge'] });
    const labelled = { ...mapping, metadata: { ...mapping.metadata, labels: { team: 'web', tier: 'front' } } };
    const plan = await planFor([
      made.gateway({ env }),
      ...made.istiod(),
      ...made.app('istio', 'web', 'shop'),
      labelled,
    ]);
    assert.deepEqual(specOf(plan, 'istio').tlsContext, { ambassadorIds: ['edge'] });
    assert.deepEqual(specOf(plan, 'istio').labels, { team: 'web', tier: 'front' });
    assert.deepEqual(outcomes(plan), [['web', 'move', 'istio']]);
  });

  it('chooses another name for its context if the mesh’s name is taken, in any namespace', async () => {
    const context = {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'TLSContext',
      metadata: { name: 'istio', namespace: 'elsewhere' },
    };
    const plan = await planFor([...ISTIO, context]);
    assert.deepEqual(specOf(plan, 'istio').tlsContext, { name: 'istio-mtls' });
  });

  it('uses an existing MeshCertificate unchanged, and its own selector', async () => {
    const certificate = {
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'mine', namespace: 'emissary' },
      spec: { istio: { ca: { serviceAccount: 'x' } }, mappings: { selector: { matchLabels: { mesh: 'yes' } } } },
    };
    const mapping = made.mapping('web', 'emissary', { service: 'web.shop' });
    const plan = await planFor([...ISTIO, ...made.app('istio', 'web', 'shop'), certificate, mapping]);
    assert.deepEqual(
      plan.steps.filter(({ object }) => object.kind === 'MeshCertificate').map(({ action }) => action),
      ['keep'],
    );
    assert.deepEqual(plan.moves[0]?.object.metadata.labels, { mesh: 'yes' });
    assert.equal(fields(plan.moves[0]?.object.spec).tls, 'mine');
  });

  it('moves nothing to a context that somebody else’s MeshCertificate will not have by then', async () => {
    const certificate = (targets: object) => ({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'mine', namespace: 'emissary' },
      spec: {
        linkerd: { serviceAccount: { name: 'x' }, ...targets },
        mappings: { selector: { matchLabels: { mesh: 'yes' } }, namespaces: ['shop'] },
      },
    });
    const objects = [
      ...LINKERD,
      ...made.app('linkerd', 'web', 'shop'),
      made.mapping('web', 'shop', { service: 'web' }),
    ];
    const unlisted = await planFor([...objects, certificate({})]);
    assert.deepEqual(outcomes(unlisted), [['web', 'stay', 'ERR_TARGET_NOT_LISTED']]);
    const listed = await planFor([
      ...objects,
      certificate({ targets: [{ serviceAccount: 'web', namespace: 'shop' }] }),
    ]);
    assert.deepEqual(outcomes(listed), [['web', 'move', 'mine-web-shop']]);
  });

  it('is empty when it was carried out and is made again, even without the flags of the first time', async () => {
    const objects = [
      made.gateway(),
      ...made.istiod(),
      made.linkerdConfig(),
      ...made.app('istio', 'web', 'shop'),
      ...made.app('linkerd', 'pay', 'bank'),
      made.mapping('web', 'shop', { service: 'web' }),
      made.mapping('pay', 'bank', { service: 'pay' }),
    ];
    const first = await planFor(objects, { changes: ['istio.ca.clusterId=prod', 'trust.hold=5m'] });
    assert.deepEqual(fields(specOf(first, 'istio').trust), { hold: '5m' });
    const second = await planFor(after(objects, first));
    assert.deepEqual(second.moves, []);
    assert.deepEqual(new Set(second.steps.map(({ action }) => action)), new Set(['none']));
    assert.deepEqual(
      outcomes(second).map(([, kind]) => kind),
      ['done', 'done'],
    );
  });

  it('extends its objects by Mappings that came since, and removes nothing', async () => {
    const objects = [
      ...LINKERD,
      ...made.app('linkerd', 'web', 'shop'),
      made.mapping('web', 'shop', { service: 'web' }),
    ];
    const first = await planFor(objects);
    const more = [...made.app('linkerd', 'pay', 'bank'), made.mapping('pay', 'bank', { service: 'pay' })];
    const second = await planFor([...after(objects, first), ...more], { changes: ['trust.hold=1m'] });
    assert.deepEqual(fields(specOf(second, 'linkerd').linkerd).targets, [
      { serviceAccount: 'web', namespace: 'shop' },
      { serviceAccount: 'pay', namespace: 'bank' },
    ]);
    assert.deepEqual(fields(specOf(second, 'linkerd').trust), { hold: '1m' });
    assert.deepEqual(
      second.moves.map(({ object }) => object.metadata.name),
      ['pay'],
    );
  });
});

describe('a refused plan', () => {
  it('names the gateway, mesh or Mapping that was probably meant', async () => {
    const objects = [...ISTIO, ...made.app('istio', 'web', 'shop'), made.mapping('web', 'shop', { service: 'web' })];
    assert.match(
      await refusal(planFor(objects, { gateway: 'emisary-ingress' })),
      /^ERR_ONBOARD_UNKNOWN_NAME: no gateway is named "emisary-ingress"; did you mean "emissary\/emissary-ingress"\?/,
    );
    assert.match(
      await refusal(planFor(objects, { meshes: ['isto'] })),
      /no mesh is named "isto"; did you mean "istio"\?/,
    );
    assert.match(
      await refusal(planFor(objects, { meshes: ['consul'] })),
      /consul was not found in this cluster; found: istio/,
    );
    assert.match(
      await refusal(planFor(objects, { routes: ['shop/wbe'] })),
      /no Mapping is named "shop\/wbe"; did you mean "shop\/web"\?/,
    );
    assert.match(
      await refusal(planFor(objects, { namespace: 'emisary' })),
      /no gateway runs in namespace "emisary"; did you mean "emissary"\?/,
    );
  });

  it('names each invalid field of --set', async () => {
    const message = await refusal(planFor(ISTIO, { changes: ['istio.ca.adress=x:1', 'trust.hold=25h'] }));
    assert.match(
      message,
      /^ERR_ONBOARD_INVALID: .*\n {2}spec\.istio\.ca\.adress: unknown field "adress"; did you mean "address"\?/s,
    );
    assert.match(message, /spec\.trust\.hold: /);
    assert.match(await refusal(planFor(ISTIO, { changes: ['=x'] })), /--set =x: expected FIELD=VALUE/);
  });

  it('says what to do if there is no gateway, no mesh, or more than one gateway', async () => {
    assert.match(await refusal(planFor(made.istiod())), /^ERR_ONBOARD_NO_GATEWAY: .*install the gateway first/);
    assert.match(await refusal(planFor([made.gateway()])), /^ERR_ONBOARD_NO_MESH: /);
    const two = [...ISTIO, made.gateway({ namespace: 'other' })];
    assert.match(
      await refusal(planFor(two)),
      /^ERR_ONBOARD_WHICH_GATEWAY: .*Deployment emissary\/emissary-ingress, Deployment other\/emissary-ingress; name one with --gateway/,
    );
  });
});

describe('the output of a plan', () => {
  it('shows the changed line of a Mapping, with the lines around it', async () => {
    const objects = [
      ...ISTIO,
      ...made.app('istio', 'web', 'shop'),
      made.mapping('web', 'emissary', { service: 'web.shop' }),
    ];
    const { steps, moves } = await planFor(objects);
    const text = showPlan({ steps, moves });
    assert.match(text, /change +Mapping emissary\/web/);
    assert.match(text, /- {3}service: web\.shop\n +\+ {3}service: https:\/\/web\.shop:80\n +\+ {3}tls: istio/);
  });

  it('says before a move what it can cost, and by what it is checked', async () => {
    const plan = await planFor([
      ...ISTIO,
      ...made.app('istio', 'web', 'shop'),
      made.mapping('web', 'emissary', { service: 'web.shop' }),
    ]);
    assert.match(
      showCost(plan),
      /one to five requests for each Mapping can be answered with 503.*\n.*--gateway-url URL/,
    );
    assert.match(showCost(plan, 'http://gw'), /Requests to http:\/\/gw before and after each move check it/);
    assert.equal(showCost({ ...plan, moves: [] }), '');
  });

  it('shows every finding, and what needs attention', async () => {
    const sidecar = made.gateway({ annotations: { 'sidecar.istio.io/inject': 'true' } });
    const objects = [
      sidecar,
      ...made.istiod(),
      ...made.app('none', 'plain', 'shop'),
      made.mapping('a', 'shop', { service: 'plain' }),
    ];
    const unseen = [{ what: 'pods in namespace bank', message: 'forbidden' }];
    const { findings, gateway, verdicts } = await planFor(objects, {}, { unseen });
    const text = showFindings(findings, gateway, verdicts, adapters);
    assert.match(text, /emissary\/emissary-ingress {2}Emissary-ingress 4\.1\.0 \(Deployment\)/);
    assert.match(text, /\n {2}istio {4}istiod 1\.27\.1 in istio-system, revision default/);
    assert.match(text, /shop\/a {2}plain \(plaintext, 1 pod in no mesh\)\n +stays: ERR_TARGET_UNMESHED/);
    assert.match(text, /sidecar of istio, which would wrap the TLS of the gateway in its own/);
    assert.match(text, /pods in namespace bank could not be read: forbidden/);
  });

  it('for GitOps, shows every object in full, without the fields that the server maintains', async () => {
    const mapping = made.mapping('web', 'emissary', { service: 'web.shop' }, { resourceVersion: '7', uid: 'u' });
    const text = planAsYaml(await planFor([...ISTIO, ...made.app('istio', 'web', 'shop'), mapping]));
    assert.match(text, /kind: MeshCertificate/);
    assert.match(text, /prefix: \/web\/\n {2}service: https:\/\/web\.shop:80\n {2}tls: istio/);
    assert.doesNotMatch(text, /resourceVersion|uid/);
  });
});

describe('an offboarding plan for Emissary', () => {
  const context = (of: string): KubeObject => ({
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'TLSContext',
    metadata: { name: 'istio', namespace: of, labels: { 'meshcert.dev/owner': `${of}.istio` } },
    spec: {},
  });
  const mapping = (of: string, spec: object = {}) =>
    made.mapping('web', of, { service: 'https://web.shop', tls: 'istio', ...spec });
  const inUse = (...objects: readonly KubeObject[]) =>
    planOffboarding(made.snapshotOf(objects), 'edge', [], made.nothingElse, gateways).leaving.flatMap((leaving) =>
      leaving.inUse.map(({ route }) => nameOf(refOf(route))),
    );

  it('releases no Mapping of another gateway that has a TLSContext of the same name', () => {
    const both = [context('edge'), context('emissary')];
    assert.deepEqual(inUse(...both, mapping('edge'), mapping('emissary')), ['Mapping edge/web']);
    // Without one of its own, it uses this one, unless no gateway reads both.
    assert.deepEqual(inUse(context('edge'), mapping('emissary')), ['Mapping emissary/web']);
    assert.deepEqual(inUse(context('edge'), mapping('emissary', { ambassador_id: ['other'] })), []);
  });
});
