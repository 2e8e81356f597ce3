import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import fc from 'fast-check';
import { linkerdConfig } from '../../../adapters/linkerd/config.ts';
import { readControlPlane, targetRules } from '../../../adapters/linkerd/control-plane.ts';
import type { MeshCertificateSpec } from '../../config/schema/mesh-certificate.ts';
import type { TargetRules } from '../../mesh/cluster.ts';
import type { KubeObject } from '../../objects/objects.ts';
import type { RouteInput, RouteVerdict } from '../gateway.ts';
import { type EmissaryConfig, MAPPING_FIELD_MANAGER } from './config.ts';
import { contextNameOf, emissaryRoutes, TARGET_CODES } from './routes.ts';

const SELECTOR = { mesh: 'linkerd' };
const WEB = 'web.shop.serviceaccount.identity.linkerd.mesh.example';

function rules(changes: object = {}, values = 'clusterDomain: cluster.local\nidentityTrustDomain: mesh.example\n') {
  const config = linkerdConfig.parse({ serviceAccount: { name: 'emissary' }, ...changes });
  return targetRules(config, readControlPlane(config, { values }));
}

interface Selection {
  readonly namespace: string;
  readonly contextName: string;
  readonly selector: Readonly<Record<string, string>> | undefined;
  /** Undefined: one context serves the whole mesh. */
  readonly rules: TargetRules | undefined;
}

function selection(changes: Partial<Selection> = {}): RouteInput<EmissaryConfig> {
  const given: Selection = {
    ...{ namespace: 'shop', contextName: 'linkerd', selector: SELECTOR, rules: rules() },
    ...changes,
  };
  return {
    meta: { name: 'mesh', namespace: given.namespace },
    spec: {} as MeshCertificateSpec,
    config: {
      tlsContext: { name: given.contextName, enabled: true, ambassadorIds: [] },
      ...(given.selector && { mappings: { selector: { matchLabels: given.selector } } }),
    },
    rules: given.rules,
  };
}

interface World {
  readonly mappings: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  readonly contexts: readonly KubeObject[];
  readonly unseen?: ReadonlyMap<string, string>;
}

const judge = (input: RouteInput<EmissaryConfig>, { mappings, contexts, unseen = new Map(), ...behind }: World) =>
  emissaryRoutes.judge(input, {
    routes: mappings,
    own: contexts,
    behind: (kind) => ({ Service: behind.services, EndpointSlice: behind.endpointSlices })[kind] ?? behind.pods,
    unseen,
    hidden: () => undefined,
    unserved: new Set(),
  });

/** The context that a Mapping must name, and its identity; or why it is left alone. */
function outcomeOf(verdict: RouteVerdict | undefined) {
  if (!verdict || !('target' in verdict.outcome)) return verdict?.outcome;
  const { object, id } = verdict.outcome.target;
  return { target: { contextName: object.name, sni: id } };
}

interface PodOptions {
  readonly name?: string;
  readonly account?: string;
  readonly controlPlane?: string | null;
  readonly annotations?: Record<string, string>;
  readonly ready?: boolean;
  readonly port?: number;
}

function mapping(changes: Record<string, unknown> = {}, meta: object = {}, kind = 'Mapping'): KubeObject {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind,
    metadata: { name: 'web', namespace: 'shop', labels: SELECTOR, resourceVersion: '7', ...meta },
    spec: { hostname: '*', prefix: '/', service: 'https://web:443', ...changes },
  };
}

const setByUs = {
  managedFields: [
    { manager: MAPPING_FIELD_MANAGER, operation: 'Apply' as const, fieldsV1: { 'f:spec': { 'f:tls': {} } } },
  ],
};

function context(name: string, sni = WEB): KubeObject {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'TLSContext',
    metadata: { name, namespace: 'emissary' },
    spec: { sni },
  };
}

function world(changes: Partial<World> & { pods?: never; list?: readonly PodOptions[]; service?: object } = {}): World {
  const { list = [{}], service = {}, ...rest } = changes;
  const named = list.map((pod, index) => ({ name: `web-${index}`, account: 'web', ready: true, port: 8080, ...pod }));
  return {
    mappings: [mapping()],
    services: [
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web', namespace: 'shop' },
        spec: { clusterIP: '10.0.0.1', ports: [{ name: 'http', port: 443 }], ...service },
      },
    ],
    endpointSlices: named.map((pod) => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: pod.name, namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' } },
      ports: [{ name: 'http', port: pod.port }],
      endpoints: [
        {
          addresses: ['10.1.0.1'],
          conditions: { ready: pod.ready },
          targetRef: { kind: 'Pod', namespace: 'shop', name: pod.name },
        },
      ],
    })),
    pods: named.map((pod) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: pod.name,
        namespace: 'shop',
        labels: pod.controlPlane === null ? {} : { 'linkerd.io/control-plane-ns': pod.controlPlane ?? 'linkerd' },
        ...(pod.annotations && { annotations: pod.annotations }),
      },
      spec: { serviceAccountName: pod.account },
    })),
    contexts: [],
    ...rest,
  };
}

/** The verdict on the only Mapping: its context, or the code and message. */
function verdict(given: World, wanted = selection()): string {
  const [first, ...more] = judge(wanted, given).verdicts;
  assert.equal(more.length, 0);
  assert.ok(first);
  if ('target' in first.outcome) return first.outcome.target.object.name;
  assert.ok((TARGET_CODES as readonly string[]).includes(first.outcome.code), first.outcome.code);
  assert.match(first.outcome.message, /^(TCP)?Mapping shop\/web cannot use the certificate: /);
  return `${first.outcome.code} ${first.outcome.message}`;
}

describe('a selected Mapping', () => {
  it('gets the context of the account behind its Service, with its identity as SNI', () => {
    const [found] = judge(selection(), world({ list: [{}, {}, {}] })).verdicts;
    assert.deepEqual(outcomeOf(found), { target: { contextName: 'linkerd-web-shop', sni: WEB } });
  });

  for (const host of ['web', 'web.shop', 'web.shop.svc', 'WEB.shop.svc.cluster.local', 'web.shop.svc.cluster.local.']) {
    it(`finds the Service by ${host}`, () => {
      assert.equal(verdict(world({ mappings: [mapping({ service: `https://${host}:443` })] })), 'linkerd-web-shop');
    });
  }

  it('without a port calls 443, as Emissary does', () => {
    assert.equal(verdict(world({ mappings: [mapping({ service: 'https://web' })] })), 'linkerd-web-shop');
  });

  it('of TCP needs no scheme', () => {
    const tcp = mapping({ service: 'web.shop:443', port: 9000 }, {}, 'TCPMapping');
    assert.equal(verdict(world({ mappings: [tcp] })), 'linkerd-web-shop');
  });

  it('uses the ready pods, and the others only while none is ready', () => {
    const old = { account: 'old', ready: false };
    assert.equal(verdict(world({ list: [{}, old] })), 'linkerd-web-shop');
    assert.equal(verdict(world({ list: [old] })), 'linkerd-old-shop');
  });

  it('of a mesh with one context for all gets that one, whatever is behind it', () => {
    const one = selection({ rules: undefined, contextName: 'istio' });
    const given = world({ mappings: [mapping({ service: 'https://web-sidecar-proxy' })], services: [], list: [] });
    assert.equal(verdict(given, one), 'istio');
    assert.deepEqual(judge(one, given).targets, [{ contextName: 'istio', sni: undefined }]);
  });

  it('keeps the context that we set when the pods move to another account, until the new one exists', () => {
    const given = world({
      mappings: [mapping({ tls: 'linkerd-old-shop' }, setByUs)],
      contexts: [context('linkerd-old-shop', 'old.shop')],
    });
    assert.equal(verdict(given), 'linkerd-web-shop');
    assert.deepEqual(
      judge(selection(), given).targets.map(({ contextName }) => contextName),
      ['linkerd-old-shop', 'linkerd-web-shop'],
      'the vanished target stays while it is named',
    );
  });
});

describe('a Mapping is not changed', () => {
  const cases: [title: string, given: World, expected: RegExp, wanted?: RouteInput<EmissaryConfig>][] = [
    [
      'when its service has no https://',
      world({ mappings: [mapping({ service: 'web.shop:443' })] }),
      /^ERR_TARGET_NO_HTTPS .*plaintext.*write https:\/\/web\.shop:443$/,
    ],
    [
      'when its service says http://',
      world({ mappings: [mapping({ service: 'http://web:80' })] }),
      /^ERR_TARGET_NO_HTTPS .*write https:\/\/web:80$/,
    ],
    [
      'when its service cannot be read',
      world({ mappings: [mapping({ service: 'https://web:port' })] }),
      /^ERR_TARGET_SERVICE_SYNTAX .*https:\/\/NAME\.NAMESPACE:PORT/,
    ],
    ['when it has no service', world({ mappings: [mapping({ service: undefined })] }), /^ERR_TARGET_SERVICE_SYNTAX /],
    [
      'when it belongs to another gateway',
      world({ mappings: [mapping({ ambassador_id: ['edge'] })] }),
      /^ERR_TARGET_AMBASSADOR_ID .*gateway edge, the context to default/,
    ],
    [
      'when its host is outside the cluster',
      world({ mappings: [mapping({ service: 'https://api.example.com' })] }),
      /^ERR_TARGET_NOT_IN_CLUSTER /,
    ],
    [
      'when its host is an address',
      world({ mappings: [mapping({ service: 'https://10.0.0.7:443' })] }),
      /^ERR_TARGET_NOT_IN_CLUSTER /,
    ],
    [
      'when its Service is an alias for something outside',
      world({ service: { type: 'ExternalName', externalName: 'db.example' } }),
      /^ERR_TARGET_NOT_IN_CLUSTER .*db\.example/,
    ],
    [
      'when its Service is missing',
      world({ services: [] }),
      /^ERR_TARGET_NO_SERVICE .*Service shop\/web does not exist/,
    ],
    [
      'when its Service has no such port',
      world({ mappings: [mapping({ service: 'https://web:8443' })] }),
      /^ERR_TARGET_NO_PORT .*no port 8443 but 443/,
    ],
    ['when its Service has no endpoints', world({ list: [] }), /^ERR_TARGET_NO_ENDPOINTS .*port 443; start its pods/],
    ['when an endpoint is no pod that can be seen', { ...world(), pods: [] }, /^ERR_TARGET_NO_POD .*Pod web-0/],
    [
      'when its pods have no proxy',
      world({ list: [{ controlPlane: null }] }),
      /^ERR_TARGET_UNMESHED .*Pod shop\/web-0.*linkerd\.io\/inject: enabled/,
    ],
    [
      'when its pods belong to another control plane',
      world({ list: [{ controlPlane: 'linkerd-eu' }] }),
      /^ERR_TARGET_OTHER_MESH .*in linkerd-eu, not linkerd/,
    ],
    [
      'when some of its pods have no proxy',
      world({ list: [{}, { controlPlane: null }, {}] }),
      /^ERR_TARGET_DISAGREE .*2 of 3 are suitable, but Pod shop\/web-1 has no Linkerd proxy/,
    ],
    [
      'when its pods have different accounts',
      world({ list: [{}, { account: 'canary' }] }),
      /^ERR_TARGET_DISAGREE .*different identities: web\.shop\..*canary\.shop\..*one ServiceAccount/,
    ],
    [
      'when the port is opaque by default',
      world({ list: [{ port: 3306 }] }),
      /^ERR_TARGET_OPAQUE_PORT .*port 3306 .*config\.linkerd\.io\/opaque-ports/,
    ],
    [
      'when the pod says that the port is opaque, alone or in a range',
      world({ list: [{ annotations: { 'config.linkerd.io/opaque-ports': '25, 8000-8090' } }] }),
      /^ERR_TARGET_OPAQUE_PORT .*port 8080/,
    ],
    [
      'when the port bypasses the proxy',
      world({ list: [{ annotations: { 'config.linkerd.io/skip-inbound-ports': '8080' } }] }),
      /^ERR_TARGET_SKIPPED_PORT .*port 8080.*skip-inbound-ports/,
    ],
    [
      'when the port is one that Linkerd skips by default',
      world({ list: [{ port: 4567 }] }),
      /^ERR_TARGET_SKIPPED_PORT /,
    ],
    ["when the port is the proxy's own", world({ list: [{ port: 4191 }] }), /^ERR_TARGET_SKIPPED_PORT /],
    ['when the port is 4143', world({ list: [{ port: 4143 }] }), /^ERR_TARGET_PROXY_PORT .*use the application's port/],
    [
      'when the account has a dot in its name',
      world({ list: [{ account: 'we.b' }] }),
      /^ERR_TARGET_NAME .*shop\/we\.b/,
    ],
    [
      'when its target is not among those that are listed',
      world(),
      /^ERR_TARGET_NOT_LISTED .*shop\/web.*discover: true/,
      selection({ rules: rules({ targets: [{ serviceAccount: 'api', namespace: 'shop' }] }) }),
    ],
    [
      'when somebody else set its tls',
      world({ mappings: [mapping({ tls: 'mine' })] }),
      /^ERR_TARGET_FOREIGN_TLS .*names mine, set by another client; .*set linkerd-web-shop/,
    ],
    [
      'when its tls was set for another MeshCertificate',
      world({ mappings: [mapping({ tls: 'istio' }, setByUs)] }),
      /^ERR_TARGET_FOREIGN_TLS .*names istio, set for another MeshCertificate/,
    ],
    [
      'when the namespace behind it cannot be seen',
      world({ unseen: new Map([['shop', 'pods is forbidden']]) }),
      /^ERR_TARGET_UNSEEN .*namespace shop .*pods is forbidden.*get, list and watch/,
    ],
    [
      'when its label was taken away after we had set it, since without tls it would fail',
      world({
        mappings: [mapping({ tls: 'linkerd-web-shop' }, { labels: {}, ...setByUs })],
        contexts: [context('linkerd-web-shop')],
      }),
      /^ERR_TARGET_UNSELECTED /,
    ],
  ];
  for (const [title, given, expected, wanted] of cases) {
    it(title, () => assert.match(verdict(given, wanted), expected));
  }

  it('and no context is made for it', () => {
    for (const [, given, , wanted] of cases) {
      const names = judge(wanted ?? selection(), given).targets.map(({ contextName }) => contextName);
      const listed = wanted ? ['linkerd-api-shop'] : [];
      const named = given.contexts.map(({ metadata }) => metadata.name);
      assert.deepEqual(names, [...listed, ...named]);
    }
  });
});

describe('the default ports of an installation', () => {
  it('are those of its linkerd-config', () => {
    const own = selection({ rules: rules({}, 'clusterDomain: mesh.example\nproxy: {opaquePorts: "8080"}\n') });
    assert.match(verdict(world(), own), /^ERR_TARGET_OPAQUE_PORT /);
    assert.equal(verdict(world({ list: [{ port: 3306 }] }), own), 'linkerd-web-shop');
  });

  it('are overridden by what the pod says, even if that is empty', () => {
    const annotations = { 'config.linkerd.io/opaque-ports': '', 'config.linkerd.io/skip-inbound-ports': '' };
    assert.equal(verdict(world({ list: [{ port: 3306, annotations }] })), 'linkerd-web-shop');
    assert.equal(verdict(world({ list: [{ port: 4567, annotations }] })), 'linkerd-web-shop');
  });

  it('do not matter for the port of the Service, only for that of the pod', () => {
    const given = world({
      mappings: [mapping({ service: 'https://web:3306' })],
      service: { ports: [{ name: 'http', port: 3306 }] },
    });
    assert.equal(verdict(given), 'linkerd-web-shop');
  });

  it('of a headless Service are the ports that are dialled', () => {
    const service = { clusterIP: 'None', ports: [] };
    assert.match(
      verdict(world({ mappings: [mapping({ service: 'https://web:3306' })], service })),
      /^ERR_TARGET_OPAQUE_PORT .*port 3306/,
    );
  });
});

describe('a Mapping that is not selected', () => {
  it('is not reported while it names none of our contexts', () => {
    const unselected = world({ mappings: [mapping({ tls: 'other' }, { labels: {} })] });
    assert.deepEqual(judge(selection(), unselected).verdicts, []);
    assert.deepEqual(judge(selection({ selector: undefined }), world()).verdicts, []);
  });

  it('is reported when it names one, and its context stays', () => {
    const given = world({ mappings: [mapping({ tls: 'linkerd-web-shop' })], contexts: [context('linkerd-web-shop')] });
    const reporting = selection({ selector: undefined });
    const [found] = judge(reporting, given).verdicts;
    assert.equal(found?.selected, false);
    assert.ok(found && 'target' in found.outcome);
    assert.deepEqual(judge(reporting, given).targets, [{ contextName: 'linkerd-web-shop', sni: WEB }]);
  });

  it('is reported as wrong when it names the context of another target', () => {
    const given = world({ mappings: [mapping({ tls: 'linkerd-api-shop' })], contexts: [context('linkerd-api-shop')] });
    assert.match(verdict(given, selection({ selector: undefined })), /^ERR_TARGET_FOREIGN_TLS .*set linkerd-web-shop/);
  });
});

describe('listed targets', () => {
  it('have contexts without any Mapping, under the names that were given', () => {
    const listed = rules({
      targets: [
        { serviceAccount: 'web', namespace: 'shop', contextName: 'shopfront' },
        { serviceAccount: 'api', namespace: 'shop', name: 'api' },
        { serviceAccount: 'db', namespace: 'data' },
      ],
    });
    const given = world({ mappings: [], contexts: [context('linkerd-gone-shop')] });
    assert.deepEqual(judge(selection({ rules: listed }), given).targets, [
      { contextName: 'linkerd-api', sni: 'api.shop.serviceaccount.identity.linkerd.mesh.example' },
      { contextName: 'linkerd-db-data', sni: 'db.data.serviceaccount.identity.linkerd.mesh.example' },
      { contextName: 'shopfront', sni: WEB },
    ]);
    assert.equal(verdict(world(), selection({ rules: listed })), 'shopfront');
  });
});

describe('what is observed behind Mappings', () => {
  it('are the namespaces of the Services of Mappings that concern us', () => {
    const mappings = [
      mapping({ service: 'https://api.data:443' }),
      mapping({ service: 'https://web' }, { name: 'b' }),
      mapping({ service: 'https://x.other' }, { name: 'c', labels: {} }),
      mapping({ service: 'https://10.0.0.1' }, { name: 'd' }),
    ];
    const namespacesBehind = (input: RouteInput<EmissaryConfig>) => {
      const routes = mappings.filter(emissaryRoutes.concern(input, []));
      const scopes = emissaryRoutes.behind(input, { routes, own: [] });
      return [...new Set(scopes.map(({ namespace }) => namespace))].sort();
    };
    assert.deepEqual(namespacesBehind(selection()), ['data', 'shop']);
    assert.deepEqual(namespacesBehind(selection({ rules: undefined })), []);
  });
});

describe('the name of a context', () => {
  const name = () => fc.stringMatching(/^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$/);

  it('is a label of at most 63 characters without dots, and is stable', () => {
    fc.assert(
      fc.property(name(), name(), (serviceAccount, namespace) => {
        const made = contextNameOf('linkerd', { serviceAccount, namespace });
        assert.match(made, /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
        assert.equal(contextNameOf('linkerd', { serviceAccount, namespace }), made);
      }),
    );
  });

  it('is never shared by two accounts', () => {
    const part = () => fc.stringMatching(/^[ab]([-ab]{0,3}[ab])?$/);
    fc.assert(
      fc.property(part(), part(), part(), part(), (account, namespace, account2, namespace2) => {
        fc.pre(account !== account2 || namespace !== namespace2);
        assert.notEqual(
          contextNameOf('linkerd', { serviceAccount: account, namespace }),
          contextNameOf('linkerd', { serviceAccount: account2, namespace: namespace2 }),
        );
      }),
    );
  });
});

test('a Mapping of another namespace is set only with its consent', () => {
  const plain = { rules: undefined, namespace: 'emissary', contextName: 'istio' };
  const world = { mappings: [] as KubeObject[], services: [], endpointSlices: [], pods: [], contexts: [] };
  const judged = (annotation?: string, more: object = {}) => {
    const annotations = annotation === undefined ? {} : { 'meshcert.dev/allow-from': annotation };
    const one = mapping({ service: 'https://web.shop:443', ...more }, { annotations });
    return outcomeOf(judge(selection(plain), { ...world, mappings: [one] }).verdicts[0]);
  };
  for (const annotation of [undefined, '', 'shop', 'emissary-2']) {
    const outcome = judged(annotation);
    assert.ok(outcome && 'code' in outcome, String(annotation));
    assert.equal(outcome.code, 'ERR_TARGET_NO_CONSENT');
    assert.match(outcome.message, /annotate it: meshcert\.dev\/allow-from=emissary/);
  }
  for (const annotation of ['emissary', 'edge, emissary', '*']) {
    assert.deepEqual(judged(annotation), { target: { contextName: 'istio', sni: undefined } });
  }
});
