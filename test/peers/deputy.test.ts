import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { parseAllDocuments, stringify } from 'yaml';
import { ROOT } from '../../scripts/tree.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { say } from '../support/io.ts';
import { peer } from './build.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { type MeshCa, startMeshCa } from './parts/mesh-ca.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const CHART = join(ROOT, 'deploy/helm/meshcert');
const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';
const AGENT = 'system:serviceaccount:emissary:edge-meshcert';
const GATEWAY = '/api/v1/namespaces/emissary/serviceaccounts/gateway/token';
const REFUSED = /ERR_(NOT_ALLOWED|CONFIG|NO_CONSENT|TOKEN_EXPOSED|KUBE_FORBIDDEN)/;
const run = promisify(execFile);

/** What the agent's token must not reach in a namespace that the agent does not watch. */
const ELSEWHERE: readonly (readonly [method: string, path: string])[] = [
  ['GET', 'secrets'],
  ['POST', 'secrets'],
  ['POST', 'serviceaccounts/gateway/token'],
];

interface Rule {
  readonly resources: readonly string[];
}

interface Attack {
  readonly title: string;
  readonly spec: object;
}

/** Each mode as the chart ships it: Roles, ServiceAccount and arguments are those of `helm template`. */
const MODES: readonly { readonly title: string; readonly values: (address: string) => object }[] = [
  { title: 'names, the default', values: () => ({}) },
  { title: 'labels', values: (address) => ({ observe: 'labels', allow: allowed(address) }) },
  {
    title: 'all namespaces',
    values: (address) => ({ observe: 'labels', allNamespaces: true, allow: allowed(address) }),
  },
];
const allowed = (address: string) => ({
  serviceAccounts: ['emissary/gateway'],
  audiences: ['istio-ca'],
  addresses: [address],
});

for (const mode of MODES) {
  describe(`a user who may create MeshCertificates and Mappings, against an agent of the chart: ${mode.title}`, () => {
    let server: KubeApiserver;
    let mesh: MeshCa;
    let attacker: Server;
    let agent: AgentProcess;
    let token: string;
    const stolen: string[] = [];

    before(async () => {
      server = await startKubeApiserver();
      await prepareCluster(server, { emissary: ['gateway'], 'team-b': ['gateway'] });
      await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
      await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev']);
      mesh = await startMeshCa({ apiserver: server, namespaces: ['emissary'], leafLifetimeMs: 60_000 });
      attacker = createServer((request, response) => {
        stolen.push(`${request.method} ${request.url} ${request.headers.authorization ?? ''}`);
        response.writeHead(500).end();
      });
      await new Promise<void>((resolve) => attacker.listen(0, '127.0.0.1', resolve));
      await startShipped();
    });
    after(async () => {
      await agent?.stop();
      attacker?.close();
      await mesh?.[Symbol.asyncDispose]();
      await server?.stop();
    });

    /** The agent with the chart's rights, name and arguments. */
    async function startShipped(): Promise<void> {
      const { address, serverName } = mesh.istio;
      const spec = {
        istio: { ca: { address, serverName, serviceAccount: 'gateway' } },
        mappings: { selector: { matchLabels: { mesh: 'istio' } }, namespaces: ['emissary', 'team-b'] },
        renewal: { at: 0.17, jitter: 0.01 },
      };
      const values = join(await mkdtemp(join(tmpdir(), 'meshcert-deputy-')), 'values.yaml');
      await writeFile(values, stringify({ ...mode.values(address), certificates: [{ name: 'istio', spec }] }));
      const args = ['template', 'edge', CHART, '--namespace', 'emissary', '--kube-version', '1.34.2', '-f', values];
      const { stdout } = await run(await peer('helm'), args);
      const shipped = parseAllDocuments(stdout).flatMap((one) =>
        one.contents === null ? [] : [one.toJS()],
      ) as (KubeObject & {
        spec: { template: { spec: { containers: { args: string[] }[] } } };
      })[];
      const kinds = /^(ServiceAccount|(Cluster)?Role(Binding)?|MeshCertificate)$/;
      const objects = shipped.filter(({ kind }) => kinds.test(kind));
      await server.kubectl(['apply', '-f', '-'], { input: objects.map((one) => stringify(one)).join('---\n') });
      token = await server.serviceAccountToken({
        namespace: 'emissary',
        name: AGENT.split(':').at(-1) ?? '',
        audience: API_AUDIENCE,
      });
      const [, ...own] =
        shipped.find(({ kind }) => kind === 'Deployment')?.spec.template.spec.containers[0]?.args ?? [];
      agent = await startAgentProcess({
        kubeconfig: await server.kubeconfigFor('agent', token),
        args: own.filter((arg) => !arg.startsWith('--listen')),
      });
      await eventually(
        'the neighbour Ready',
        async () => condition(await read('istio'), 'Ready') === 'True',
        agent.log,
      );
    }

    const path = (namespace: string) => `/apis/meshcert.dev/v1alpha1/namespaces/${namespace}/meshcertificates`;
    const read = async (name: string) =>
      ((await server.call('GET', `${path('emissary')}/${name}`)).body as { status?: PublicationStatus }).status;
    const condition = (status: PublicationStatus | undefined, type: string) =>
      status?.conditions?.find((one) => one.type === type)?.status;
    /** From the status, or else from the log. */
    const said = async (name: string): Promise<string> => {
      const degraded = (await read(name))?.conditions?.find(({ type }) => type === 'Degraded')?.message;
      const logged = agent.log().split('\n');
      return degraded ?? logged.find((line) => line.includes(name) && line.includes('ERR_')) ?? '';
    };
    const leaf = async () => (await read('istio'))?.fingerprint;
    /** Tokens that the agent was given, by the path of the account. */
    const minted = async () =>
      (await server.audit())
        .filter(({ user, requestURI, responseStatus }) => {
          return user.username === AGENT && requestURI.includes('/token') && responseStatus?.code === 201;
        })
        .map(({ requestURI }) => requestURI.split('?')[0]);

    const attacks = (): readonly Attack[] => {
      const { port } = attacker.address() as AddressInfo;
      const there = `127.0.0.1:${port}`;
      const login = (audience: string) => ({ login: { method: 'any', serviceAccount: 'gateway', audience } });
      return [
        {
          title: "the API server's audience, to another Consul",
          spec: { consul: { http: { address: `http://${there}` }, auth: login(API_AUDIENCE) } },
        },
        {
          title: 'a token of the mesh, in plaintext',
          spec: { consul: { http: { address: `http://attacker.test:${port}` }, auth: login('istio-ca') } },
        },
        {
          title: 'a token of the mesh, by gRPC without TLS',
          spec: {
            consul: {
              datacenter: 'dc1',
              grpc: { addresses: [`attacker.test:${port}`], plaintext: true },
              auth: login('istio-ca'),
            },
          },
        },
        {
          title: 'a token of another namespace',
          spec: {
            linkerd: {
              serviceAccount: { name: 'gateway', namespace: 'team-b' },
              address: there,
              trustDomain: 'cluster.local',
            },
          },
        },
      ];
    };

    it('gives no token away, and its neighbour continues to rotate', async () => {
      for (const [at, { title, spec }] of attacks().entries()) {
        const name = `attack-${at}`;
        const { status } = await server.call('POST', path('emissary'), {
          apiVersion: 'meshcert.dev/v1alpha1',
          kind: 'MeshCertificate',
          metadata: { name },
          spec,
        });
        // The definition refuses what no agent would do.
        if (status === 422) continue;
        assert.equal(status, 201, title);
        // The Role for `names` does not even permit writing the status of a MeshCertificate that it does not name.
        await eventually(`${title} refused`, async () => REFUSED.test(await said(name)), agent.log);
      }
      const before = await leaf();
      await eventually('the next leaf of the neighbour', async () => (await leaf()) !== before, agent.log);
      assert.equal(condition(await read('istio'), 'Ready'), 'True');
      assert.deepEqual(stolen, []);
      assert.deepEqual([...new Set(await minted())], [GATEWAY]);
    });

    // With all namespaces, the Secrets of each are within the agent's rights.
    if (mode.title !== 'all namespaces') {
      it('has no rights on Secrets and tokens of another namespace', async () => {
        for (const [method, what] of ELSEWHERE) {
          const body = method === 'POST' ? { metadata: { generateName: 'trial-' } } : undefined;
          const path = `/api/v1/namespaces/team-b/${what}?dryRun=All`;
          assert.equal((await server.call(method, path, body, { token })).status, 403, `${method} ${path}`);
        }
      });
    }

    it('changes a Mapping of another namespace only with the consent of its owner', async () => {
      const mappings = '/apis/getambassador.io/v3alpha1/namespaces/team-b/mappings';
      const mapping = (name: string, annotations: object) => ({
        apiVersion: 'getambassador.io/v3alpha1',
        kind: 'Mapping',
        metadata: { name, namespace: 'team-b', labels: { mesh: 'istio' }, annotations },
        spec: { hostname: '*', prefix: `/${name}/`, service: 'https://web.team-b:443' },
      });
      await server.apply(mappings, mapping('silent', {}));
      await server.apply(mappings, mapping('willing', { 'meshcert.dev/allow-from': 'emissary' }));
      const tls = async (name: string) => (await server.call('GET', `${mappings}/${name}`)).body.spec.tls;
      await eventually('spec.tls of the willing one', async () => (await tls('willing')) === 'istio', agent.log);
      await eventually(
        'why the silent one is left alone',
        async () => JSON.stringify((await read('istio'))?.mappings).includes('ERR_TARGET_NO_CONSENT'),
        agent.log,
      );
      assert.equal(await tls('silent'), undefined);
    });
  });
}

describe('a ServiceAccount that a finalizer keeps, to an agent with the Roles of render --rbac', () => {
  const CERTIFICATES = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates';
  let server: KubeApiserver;
  let attacker: Server;
  let agent: AgentProcess;
  const bearers: string[] = [];

  before(async () => {
    server = await startKubeApiserver();
    await prepareCluster(server, { emissary: ['meshcert', 'gateway', 'leaving'] });
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev']);
    attacker = createServer(async (request, response) => {
      let body = '';
      for await (const part of request) body += part;
      bearers.push(...(body.match(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g) ?? []));
      response.writeHead(500).end();
    });
    await new Promise<void>((resolve) => attacker.listen(0, '127.0.0.1', resolve));
    const documents = join(await mkdtemp(join(tmpdir(), 'meshcert-deputy-')), 'certificates.yaml');
    const certificates = NAMES.map(([name, account, audience]) => certificate(name, account, audience));
    await writeFile(documents, certificates.map((one) => stringify(one)).join('---\n'));
    const roles = await say(['render', '--rbac', '-f', documents]);
    assert.equal(roles.code, 0, roles.stderr);
    await server.kubectl(['apply', '-f', '-'], { input: roles.stdout });
    const token = await server.serviceAccountToken({ namespace: 'emissary', name: 'meshcert', audience: API_AUDIENCE });
    agent = await startAgentProcess({
      kubeconfig: await server.kubeconfigFor('agent', token),
      args: ['-n', 'emissary', '--observe', 'names', '--log-level', 'warn'],
    });
  });
  after(async () => {
    await agent?.stop();
    attacker?.close();
    await server?.stop();
  });

  const NAMES = [
    ['leaving', 'leaving', API_AUDIENCE],
    ['staying', 'gateway', API_AUDIENCE],
    ['leaving-unread', 'leaving', API_AUDIENCE],
    ['staying-unread', 'gateway', API_AUDIENCE],
    ['harmless', 'gateway', 'consul'],
  ] as const;
  const certificate = (name: string, serviceAccount: string, audience: string) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: 'emissary' },
    spec: {
      consul: {
        http: { address: `http://127.0.0.1:${(attacker.address() as AddressInfo).port}` },
        auth: { login: { method: 'any', serviceAccount, audience } },
      },
      tlsContext: { enabled: false },
    },
  });
  async function judged(name: string): Promise<string> {
    const [, account, audience] = NAMES.find(([one]) => one === name) ?? assert.fail(name);
    const { status } = await server.call('POST', CERTIFICATES, certificate(name, account, audience));
    assert.equal(status, 201);
    let message = '';
    await eventually(
      `the failure of ${name}`,
      async () => {
        const { body } = await server.call('GET', `${CERTIFICATES}/${name}`);
        const { lastError } = (body.status ?? {}) as PublicationStatus;
        message = lastError === undefined ? '' : `${lastError.code}: ${lastError.message}`;
        return message !== '';
      },
      agent.log,
    );
    return message;
  }

  it('lends no other account its refusal: no API token is sent', { timeout: 300_000 }, async () => {
    const path = '/api/v1/namespaces/emissary/serviceaccounts/leaving';
    await server.kubectl([
      'patch',
      'serviceaccount',
      'leaving',
      '-n',
      'emissary',
      '--type=merge',
      '-p',
      '{"metadata":{"finalizers":["example.com/hold"]}}',
    ]);
    await server.call('DELETE', path);
    // From 60 s after its deletion on, the API server answers 401 to the tokens of an account that is still there.
    const refused = async () => {
      const token = await server.serviceAccountToken({
        namespace: 'emissary',
        name: 'leaving',
        audience: API_AUDIENCE,
      });
      return (await server.call('GET', '/version', undefined, { token })).status === 401;
    };
    await eventually('the API server to refuse its tokens', refused, agent.log, 120_000);
    assert.match(await judged('leaving'), /^ERR_MESH_TOKEN: ServiceAccount emissary\/leaving is being deleted/);
    assert.match(await judged('staying'), /^ERR_NOT_ALLOWED: .* opens the Kubernetes API/);
    // Under an older Role, which does not let the agent read the account, the audiences decide.
    const roles = '/apis/rbac.authorization.k8s.io/v1/namespaces/emissary/roles';
    const { items } = (await server.call('GET', roles)).body as { items: (KubeObject & { rules: Rule[] })[] };
    for (const one of items) {
      const rules = one.rules.filter(({ resources }) => !resources.includes('serviceaccounts'));
      await server.call('PUT', `${roles}/${one.metadata.name}`, { ...one, rules });
    }
    assert.match(await judged('leaving-unread'), /^ERR_NOT_ALLOWED: .* opens the Kubernetes API/);
    assert.match(await judged('staying-unread'), /^ERR_NOT_ALLOWED: .* opens the Kubernetes API/);
    assert.equal(bearers.length, 0);
    // A token for a mesh is sent; the API server does not accept it.
    await judged('harmless');
    assert.ok(bearers.length > 0);
    for (const token of bearers) {
      assert.equal((await server.call('GET', '/version', undefined, { token })).status, 401);
      assert.deepEqual(JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()).aud, ['consul']);
    }
  });
});
