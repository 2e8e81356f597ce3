import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { say } from '../support/io.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { type BackendOptions, putBackend } from './parts/linkerd-workload.ts';
import { prepareCluster } from './parts/prepare.ts';
import { authority } from './servers/authority.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type LinkerdJudge, startLinkerdJudge } from './servers/linkerd-judge.ts';
import { discard, scratchDir } from './servers/process.ts';

const MAPPINGS = '/apis/getambassador.io/v3alpha1/namespaces/emissary/mappings';
const WEB: BackendOptions = { account: 'web' };

interface TargetCase {
  readonly code: string;
  /** The cause and the advice, as the status has them. */
  readonly says: RegExp;
  readonly service: string;
  readonly given?: () => Promise<unknown>;
  readonly fix: () => Promise<unknown>;
}

/** Each error is brought about on a real API server with Linkerd's identity service; then what it advises is done. */
describe('the advice of errors about the targets of Mappings', () => {
  let server: KubeApiserver;
  let judge: LinkerdJudge;
  let second: LinkerdJudge;
  let agent: AgentProcess;
  let dir: string;

  before(async () => {
    dir = scratchDir('advice-targets');
    server = await startKubeApiserver();
    await prepareCluster(server, {
      emissary: ['emissary', 'meshcert'],
      shop: ['web', 'api', 'dotted.name'],
      bank: ['web'],
      linkerd: [],
      'linkerd-two': [],
    });
    const root = await authority('root.linkerd.cluster.local');
    const settings = { apiserver: server, root, trustDomain: 'mesh.example', lifetime: '24h', skew: '5s' };
    judge = await startLinkerdJudge(settings);
    second = await startLinkerdJudge({ ...settings, namespace: 'linkerd-two' });
    await putBackend(server, 'web', [WEB]);
    await putBackend(server, 'api', [{ account: 'api' }]);
    agent = await startAgentProcess({
      kubeconfig: await narrow(documents([{ serviceAccount: 'web', namespace: 'shop' }])),
      documents: documents([{ serviceAccount: 'web', namespace: 'shop' }]),
      args: ['--namespace', 'emissary'],
    });
  });
  after(async () => {
    await agent?.stop();
    await judge?.stop();
    await second?.stop();
    await server?.stop();
    if (dir) discard(dir);
  });

  /** `linkerd` finds its targets, `listed` has these, and `two` is of another control plane. */
  const documents = (targets: readonly object[]): string =>
    Object.entries({
      linkerd: {},
      listed: { targets },
      two: { controlPlaneNamespace: 'linkerd-two', address: second.tlsAddress },
    })
      .map(([name, more]) =>
        JSON.stringify({
          apiVersion: 'meshcert.dev/v1alpha1',
          kind: 'MeshCertificate',
          metadata: { name, namespace: 'emissary' },
          spec: {
            linkerd: { serviceAccount: { name: 'emissary' }, address: judge.tlsAddress, ...more },
            mappings: { selector: { matchLabels: { mesh: name } }, namespaces: ['emissary', 'shop'] },
          },
        }),
      )
      .join('\n---\n');
  const rights = async (text: string): Promise<string> => {
    const file = join(dir, 'mesh.yaml');
    await writeFile(file, text);
    const { code, stdout, stderr } = await say([
      'render',
      '--rbac',
      '--as-file',
      '-f',
      file,
      '--namespace',
      'emissary',
    ]);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  /** A kubeconfig of the agent's account with the Roles that are rendered for these documents. */
  const narrow = async (text: string): Promise<string> => {
    await server.kubectl(['apply', '-f', '-'], { input: await rights(text) });
    const audience = 'https://kubernetes.default.svc.cluster.local';
    return server.kubeconfigFor(
      'meshcert',
      await server.serviceAccountToken({ namespace: 'emissary', name: 'meshcert', audience }),
    );
  };
  const mapping = (name: string, service: string, mesh = 'linkerd') =>
    server.apply(MAPPINGS, {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'Mapping',
      metadata: { name, labels: { mesh } },
      spec: { hostname: '*', prefix: `/${name}/`, service },
    });
  const service = (name: string, to: string) =>
    server.kubectl([
      'patch',
      'mapping',
      name,
      '-n',
      'emissary',
      '--type=merge',
      '-p',
      JSON.stringify({ spec: { service: to } }),
    ]);
  const pod = (verb: string, name: string, ...changes: string[]) =>
    server.kubectl([verb, `pod/${name}`, '-n', 'shop', '--overwrite', ...changes]);
  const entryOf = async (name: string, of = 'linkerd') => {
    const found = (await agent.statuses()).find((one) => one.name === of);
    return found?.status.mappings?.find((one) => one.name === name);
  };
  const refused = async (name: string, code: string, says: RegExp, of = 'linkerd') => {
    await eventually(`${code} of ${name}`, async () => (await entryOf(name, of))?.state === code, agent.log);
    assert.match((await entryOf(name, of))?.message ?? '', says);
  };
  const moved = async (name: string, of = 'linkerd') => {
    await eventually(`${name} to be moved`, async () => (await entryOf(name, of))?.state === 'ok', agent.log);
    assert.match((await server.call('GET', `${MAPPINGS}/${name}`)).body.spec.tls, new RegExp(`^${of}-`));
  };

  const cases: Readonly<Record<string, TargetCase>> = {
    syntax: {
      code: 'ERR_TARGET_SERVICE_SYNTAX',
      says: /cannot be read.*write https:\/\/NAME\.NAMESPACE:PORT/,
      service: 'https://web.shop:nonsense',
      fix: () => service('syntax', 'https://web.shop:443'),
    },
    outside: {
      code: 'ERR_TARGET_NOT_IN_CLUSTER',
      says: /alias of web\.example\.com.*use the Service that has the pods/,
      service: 'https://alias.shop',
      given: () =>
        server.apply('/api/v1/namespaces/shop/services', {
          apiVersion: 'v1',
          kind: 'Service',
          metadata: { name: 'alias' },
          spec: { type: 'ExternalName', externalName: 'web.example.com' },
        }),
      fix: () => service('outside', 'https://web.shop'),
    },
    'no-port': {
      code: 'ERR_TARGET_NO_PORT',
      says: /has no port 8443 but 443; use one of these/,
      service: 'https://web.shop:8443',
      fix: () => service('no-port', 'https://web.shop:443'),
    },
    'no-endpoints': {
      code: 'ERR_TARGET_NO_ENDPOINTS',
      says: /no endpoints on port 443; start its pods/,
      service: 'https://idle.shop',
      given: () =>
        server.apply('/api/v1/namespaces/shop/services', {
          apiVersion: 'v1',
          kind: 'Service',
          metadata: { name: 'idle' },
          spec: { ports: [{ name: 'http', port: 443, targetPort: 8080 }] },
        }),
      fix: () => putBackend(server, 'idle', [WEB]),
    },
    skipped: {
      code: 'ERR_TARGET_SKIPPED_PORT',
      says: /port 8080 of Pod shop\/skipped-0 bypasses its proxy.*remove it from config\.linkerd\.io\/skip-inbound-ports/,
      service: 'https://skipped.shop',
      given: async () => {
        await putBackend(server, 'skipped', [WEB]);
        await pod('annotate', 'skipped-0', 'config.linkerd.io/skip-inbound-ports=8080');
      },
      fix: () => pod('annotate', 'skipped-0', 'config.linkerd.io/skip-inbound-ports-'),
    },
    opaque: {
      code: 'ERR_TARGET_OPAQUE_PORT',
      says: /port 8080 of Pod shop\/opaque-0 is opaque.*remove it from config\.linkerd\.io\/opaque-ports/,
      service: 'https://opaque.shop',
      given: async () => {
        await putBackend(server, 'opaque', [WEB]);
        await pod('annotate', 'opaque-0', 'config.linkerd.io/opaque-ports=8080');
      },
      fix: () => pod('annotate', 'opaque-0', 'config.linkerd.io/opaque-ports-'),
    },
    proxy: {
      code: 'ERR_TARGET_PROXY_PORT',
      says: /port 4143 of Pod shop\/proxy-0 accepts only Linkerd's own proxies; use the application's port/,
      service: 'https://proxy.shop',
      given: () => putBackend(server, 'proxy', [{ account: 'web', podPort: 4143 }]),
      fix: () => putBackend(server, 'proxy', [WEB]),
    },
    dotted: {
      code: 'ERR_TARGET_NAME',
      says: /gives no identity to ServiceAccount shop\/dotted\.name.*use another account/,
      service: 'https://dotted.shop',
      given: () => putBackend(server, 'dotted', [{ account: 'dotted.name' }]),
      fix: () => putBackend(server, 'dotted', [WEB]),
    },
    bare: {
      code: 'ERR_TARGET_UNMESHED',
      says: /has no Linkerd proxy.*inject it/,
      service: 'https://bare.shop',
      given: () => putBackend(server, 'bare', [{ account: 'web', meshed: false }]),
      fix: () => putBackend(server, 'bare', [WEB]),
    },
    mixed: {
      code: 'ERR_TARGET_DISAGREE',
      says: /different identities.*give them one ServiceAccount/,
      service: 'https://mixed.shop',
      given: () => putBackend(server, 'mixed', [WEB, { account: 'api' }]),
      fix: () => putBackend(server, 'mixed', [WEB, WEB]),
    },
    missing: {
      code: 'ERR_TARGET_NO_SERVICE',
      says: /Service shop\/missing does not exist; create it/,
      service: 'https://missing.shop',
      fix: () => putBackend(server, 'missing', [WEB]),
    },
  };

  for (const [name, { code, says, service: to, given, fix }] of Object.entries(cases)) {
    it(`${code}: what it says is done, and spec.tls is set`, async () => {
      await given?.();
      await mapping(name, to);
      await refused(name, code, says);
      await fix();
      await moved(name);
    });
  }

  it('ERR_TARGET_OTHER_MESH: use a MeshCertificate for the other control plane', async () => {
    await putBackend(server, 'other', [WEB]);
    await pod('label', 'other-0', 'linkerd.io/control-plane-ns=linkerd-two');
    await mapping('other', 'https://other.shop');
    await refused(
      'other',
      'ERR_TARGET_OTHER_MESH',
      /belongs to the control plane in linkerd-two.*use a MeshCertificate for that one/,
    );
    await server.kubectl(['label', 'mapping/other', '-n', 'emissary', '--overwrite', 'mesh=two']);
    await moved('other', 'two');
  });

  it('ERR_TARGET_NOT_LISTED: add it to targets', async () => {
    await mapping('unlisted', 'https://api.shop', 'listed');
    await refused('unlisted', 'ERR_TARGET_NOT_LISTED', /ServiceAccount shop\/api.*add it to targets/, 'listed');
    const targets = ['web', 'api'].map((serviceAccount) => ({ serviceAccount, namespace: 'shop' }));
    const text = documents(targets);
    await server.kubectl(['apply', '-f', '-'], { input: await rights(text) });
    await agent.configure(text);
    await moved('unlisted', 'listed');
  });

  it('ERR_TARGET_NO_POD: list the target, and name its context in the Mapping', async () => {
    await putBackend(server, 'external', [WEB]);
    const slice = { endpoints: [{ addresses: ['192.0.2.1'], conditions: { ready: true } }] };
    const change = ['patch', 'endpointslice/external-1', '-n', 'shop', '--type=merge', '-p', JSON.stringify(slice)];
    await server.kubectl(change);
    await mapping('external', 'https://external.shop', 'listed');
    await refused(
      'external',
      'ERR_TARGET_NO_POD',
      /list the target in the MeshCertificate and name its context/,
      'listed',
    );
    const tls = JSON.stringify({ spec: { tls: 'listed-web-shop' } });
    await server.kubectl(['patch', 'mapping', 'external', '-n', 'emissary', '--type=merge', '-p', tls]);
    await moved('external', 'listed');
  });

  it('ERR_TARGET_UNSEEN: grant the permission', async () => {
    await mapping('unseen', 'https://web.bank');
    await refused(
      'unseen',
      'ERR_TARGET_UNSEEN',
      /namespace bank cannot be read.*get, list and watch on services, endpointslices and pods/,
    );
    const metadata = { name: 'meshcert-targets', namespace: 'bank' };
    const verbs = ['get', 'list', 'watch'];
    const role = {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'Role',
      metadata,
      rules: [
        { apiGroups: [''], resources: ['services', 'pods'], verbs },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs },
      ],
    };
    const binding = {
      apiVersion: role.apiVersion,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: metadata.name },
      subjects: [{ kind: 'ServiceAccount', name: 'meshcert', namespace: 'emissary' }],
    };
    for (const object of [role, binding]) await server.kubectl(['apply', '-f', '-'], { input: JSON.stringify(object) });
    const state = async () => (await entryOf('unseen'))?.state;
    await eventually(
      'the Service to be looked for',
      async () => (await state()) === 'ERR_TARGET_NO_SERVICE',
      agent.log,
      120_000,
    );
  });
});
