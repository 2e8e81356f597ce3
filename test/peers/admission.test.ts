import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { ROOT } from '../../scripts/tree.ts';
import { admissionPolicy } from '../../src/config/admission.ts';
import { eventually } from './parts/eventually.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const AGENT = { name: 'meshcert', namespace: 'emissary' };
/** Each may write MeshCertificates; each may mint tokens for only one account. */
const USERS = [
  { name: 'gateway-admin', account: { namespace: 'emissary', name: 'gateway' } },
  { name: 'edge-admin', account: { namespace: 'edge', name: 'gateway' } },
  { name: 'agent-admin', account: AGENT },
  { name: 'nobody', account: undefined },
] as const;
type User = (typeof USERS)[number]['name'];

const tokens = new Map<string, string>(USERS.map(({ name }) => [name, randomUUID()]));
const MCERTS = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates';
let server: KubeApiserver;

before(async () => {
  const users = USERS.map(({ name }) => ({ name, token: tokens.get(name) ?? '' }));
  server = await startKubeApiserver({ users });
  for (const namespace of ['emissary', 'edge', 'unwatched']) await server.ensureNamespace(namespace);
  await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
  await server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
  const policy = admissionPolicy({ adapters, name: 'meshcert', serviceAccount: AGENT, namespaces: ['emissary'] });
  await server.kubectl(['apply', '-f', '-'], {
    input: [...policy, ...rights()].map((one) => stringify(one)).join('---\n'),
  });
  // The API server reads a new policy within a second or so.
  await eventually(
    'the policy',
    async () => (await create('nobody', 'any', ISTIO, `${MCERTS}?dryRun=All`)).status === 403,
  );
});
after(() => server?.stop());

/** RBAC for the users above. */
function rights(): object[] {
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  const roleRef = (kind: string, name: string) => ({ apiGroup: 'rbac.authorization.k8s.io', kind, name });
  const subject = (name: string) => ({ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name });
  const rules = [
    { apiGroups: ['meshcert.dev'], resources: ['meshcertificates', 'meshcertificates/status'], verbs: ['*'] },
  ];
  return [
    { apiVersion, kind: 'ClusterRole', metadata: { name: 'mcert-admin' }, rules },
    {
      apiVersion,
      kind: 'ClusterRoleBinding',
      metadata: { name: 'mcert-admin' },
      roleRef: roleRef('ClusterRole', 'mcert-admin'),
      subjects: USERS.map(({ name }) => subject(name)),
    },
    ...USERS.flatMap(({ name, account }) => {
      if (!account) return [];
      const metadata = { name, namespace: account.namespace };
      const resourceNames = [account.name];
      return [
        {
          apiVersion,
          kind: 'Role',
          metadata,
          rules: [{ apiGroups: [''], resources: ['serviceaccounts/token'], resourceNames, verbs: ['create'] }],
        },
        { apiVersion, kind: 'RoleBinding', metadata, roleRef: roleRef('Role', name), subjects: [subject(name)] },
      ];
    }),
  ];
}

const ISTIO = { istio: { ca: { serviceAccount: 'gateway' } } };

const SELECTED = { selector: { matchLabels: { a: 'b' } } };
const GATEWAYS = {
  gatewayApi: { clientCertificate: 'Gateway', gateways: { ...SELECTED, namespaces: ['*'] }, services: SELECTED },
};

const as = (user: User) => ({ token: tokens.get(user) ?? '' });

function create(user: User, name: string, spec: object, path = MCERTS) {
  const object = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata: { name }, spec };
  return server.call('POST', path, object, as(user));
}

function patch(user: User, name: string, change: object, subresource = '') {
  const options = { ...as(user), contentType: 'application/merge-patch+json' };
  return server.call('PATCH', `${MCERTS}/${name}${subresource}`, change, options);
}

const LOGIN = { method: 'm' };
const consul = (auth: object) => ({ consul: { http: { address: 'https://consul.test:8501' }, auth } });
const cases: [title: string, spec: object, allowed: User, account: string][] = [
  ['istio', ISTIO, 'gateway-admin', 'emissary/gateway'],
  ['istio with a token file', { istio: { ca: { tokenFile: '/var/run/t' } } }, 'agent-admin', 'emissary/meshcert'],
  ['linkerd', { linkerd: { serviceAccount: { name: 'gateway' } } }, 'gateway-admin', 'emissary/gateway'],
  [
    'linkerd of another namespace',
    { linkerd: { serviceAccount: { name: 'gateway', namespace: 'edge' } } },
    'edge-admin',
    'edge/gateway',
  ],
  ['linkerd with a token file', { linkerd: { tokenFile: '/var/run/t' } }, 'agent-admin', 'emissary/meshcert'],
  ['consul login', consul({ login: { ...LOGIN, serviceAccount: 'gateway' } }), 'gateway-admin', 'emissary/gateway'],
  [
    'consul login with a token file',
    consul({ login: { ...LOGIN, tokenFile: '/t' } }),
    'agent-admin',
    'emissary/meshcert',
  ],
  ["consul login with the agent's own token", consul({ login: LOGIN }), 'agent-admin', 'emissary/meshcert'],
  ['consul with a token file', consul({ tokenFile: '/t' }), 'agent-admin', 'emissary/meshcert'],
];

for (const [at, [title, spec, allowed, account]] of cases.entries()) {
  test(`${title}: only a user who may mint tokens of ${account} may create the MeshCertificate`, async () => {
    for (const { name: user } of USERS) {
      const { status, body } = await create(user, `case-${at}-${user}`, spec);
      if (user === allowed) {
        assert.equal(status, 201, JSON.stringify(body));
        continue;
      }
      const [namespace, name] = account.split('/');
      const message = `the MeshCertificate uses tokens of ServiceAccount ${account}, for which user ${user} cannot create tokens: grant "create" on serviceaccounts/token with resourceNames [${name}] in namespace ${namespace}`;
      assert.equal(status, 403, `${user}: ${JSON.stringify(body)}`);
      assert.ok(body.message.endsWith(message), body.message);
    }
  });
}

test("where no account is named, the identity is the agent's own, and so is the account that is asked for", async () => {
  for (const [name, spec] of Object.entries({
    socket: { istio: { sds: {} } },
    anonymous: consul({ token: 'inline' }),
    plain: { consul: { http: { address: 'http://127.0.0.1:8500' } } },
  })) {
    assert.equal((await create('nobody', name, spec)).status, 403, name);
    assert.equal((await create('agent-admin', name, spec)).status, 201, name);
    assert.equal((await patch('gateway-admin', name, { spec: { secretName: 'elsewhere' } })).status, 403, name);
  }
});

test('every change of the spec needs the right, a change of metadata and of the status does not', async () => {
  assert.equal((await create('gateway-admin', 'changed', ISTIO)).status, 201);
  const changes: object[] = [
    { istio: { ca: { serviceAccount: 'other' } } },
    { istio: { ca: { address: 'attacker.test:443' } } },
    { istio: { ca: { audience: 'other' } } },
    { istio: null, linkerd: { serviceAccount: { name: 'gateway' } } },
    { secretName: 'theirs' },
    { caSecretName: 'theirs' },
    { crlSecretName: 'theirs' },
    { configMapName: 'theirs' },
    GATEWAYS,
    { mappings: { selector: { matchLabels: { mesh: 'istio' } }, namespaces: ['*'] } },
    { probe: { address: 'attacker.test:443' } },
    { upstreams: { enabled: false } },
    { trust: { hold: '1s' } },
    { deletionPolicy: 'Delete' },
    { paused: true },
  ];
  for (const spec of changes)
    assert.equal((await patch('nobody', 'changed', { spec })).status, 403, JSON.stringify(spec));
  for (const change of [
    { metadata: { labels: { team: 'shop' }, annotations: { 'meshcert.dev/renew': '1' } } },
    { metadata: { finalizers: ['meshcert.dev/retire'] } },
    { metadata: { finalizers: null } },
  ]) {
    const { status, body } = await patch('nobody', 'changed', change);
    assert.equal(status, 200, `${JSON.stringify(change)}: ${JSON.stringify(body)}`);
  }
  const status = { mesh: 'istio', roots: [], mappings: [], targets: [], rotations: 0, conditions: [] };
  assert.equal((await patch('nobody', 'changed', { status }, '/status')).status, 200);
  for (const spec of [{ istio: { ca: { ttl: '2h' } } }, { probe: { address: 'web.shop:443' } }, { paused: true }])
    assert.equal((await patch('gateway-admin', 'changed', { spec })).status, 200, JSON.stringify(spec));
  assert.equal((await server.call('DELETE', `${MCERTS}/changed`, undefined, as('nobody'))).status, 200);
});

test('who may mint for another account only, takes over no MeshCertificate by naming that one', async () => {
  assert.equal((await create('gateway-admin', 'coveted', ISTIO)).status, 201);
  const own = { istio: null, linkerd: { serviceAccount: { name: 'gateway', namespace: 'edge' } } };
  const { status, body } = await patch('edge-admin', 'coveted', { spec: own });
  assert.equal(status, 403);
  assert.match(body.message, /tokens of ServiceAccount emissary\/gateway, for which user edge-admin cannot/);
  assert.equal((await patch('gateway-admin', 'coveted', { spec: own })).status, 403);
});

test('kubectl shows the refusal', async () => {
  assert.equal((await create('gateway-admin', 'shown', ISTIO)).status, 201);
  const kubeconfig = await server.kubeconfigFor('nobody', tokens.get('nobody') ?? '');
  const change = [
    'patch',
    'mcert',
    'shown',
    '-n',
    'emissary',
    '--type=merge',
    '-p',
    '{"spec":{"secretName":"theirs"}}',
  ];
  await assert.rejects(server.kubectl(change, { kubeconfig }), /denied request: the MeshCertificate uses/);
  await server.kubectl(['annotate', 'mcert', 'shown', '-n', 'emissary', 'note=free'], { kubeconfig });
});

test('namespaces without an agent are not affected', async () => {
  const path = MCERTS.replace('emissary', 'unwatched');
  assert.equal((await create('nobody', 'free', ISTIO, path)).status, 201);
});
