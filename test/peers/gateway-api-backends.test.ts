import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { shippedMain } from '../support/io.ts';
import { grantedKubeconfig } from './parts/agent-in-role.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import {
  backendGrant,
  backendRef,
  EXTENSIONS,
  GATEWAYS,
  type GatewayLab,
  gateway,
  policy,
  route,
  SHOP,
  serialOf,
  startGatewayLab,
  startUpstream,
  type Upstream,
} from './parts/gateway-lab.ts';
import { startIstioWorkload, type Workload } from './parts/istio-workload.ts';
import { writePair } from './parts/mesh-files.ts';
import { type Authority, authority, type KeyPair } from './servers/authority.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import type { ApplyObject } from './servers/kube-client.ts';
import { discard, scratchDir } from './servers/process.ts';

const DAY = 86_400_000;
const OTHER = 'spiffe://other/gateway';

const documents = (istiod: Istiod, directory: string): string => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: istio, namespace: ${GATEWAYS}}
spec:
  istio: {ca: {address: "${istiod.secureAddress}", serverName: ${istiod.serverName}, serviceAccount: gateway}}
  gatewayApi:
    clientCertificate: Backend
    backends: {selector: {matchLabels: {mesh: istio}}, namespaces: [${SHOP}]}
---
apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: other, namespace: ${GATEWAYS}}
spec:
  file: {directory: ${directory}}
  gatewayApi:
    clientCertificate: Backend
    backends: {selector: {matchLabels: {mesh: other}}, namespaces: [${SHOP}]}
    subjectAltNames: [spiffe://other/server]
  upstreams: {interval: 10s}
---
apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: services, namespace: ${GATEWAYS}}
spec:
  istio: {ca: {address: "${istiod.secureAddress}", serverName: ${istiod.serverName}, serviceAccount: gateway}}
  gatewayApi:
    gateways: {selector: {matchLabels: {mesh: none}}}
    services: {selector: {matchLabels: {mesh: istio}}, namespaces: [${SHOP}]}
`;

describe('Backends on real parts: kube-apiserver, istiod, Envoy Gateway, Envoy, the agent under the rendered Role', () => {
  let lab: GatewayLab;
  let istiod: Istiod;
  let other: Authority;
  let agent: AgentProcess;
  const files = scratchDir('backends');
  const open: AsyncDisposable[] = [];
  const edge = gateway('edge');

  const kept = <T extends AsyncDisposable>(one: T): T => {
    open.push(one);
    return one;
  };
  const exposed = async (upstream: Upstream): Promise<Upstream> => {
    await lab.envoyGateway.expose(upstream.port);
    return kept(upstream);
  };
  /** A Service of Istio with one pod, an upstream with the certificate of an account, a Backend and a route. */
  async function serve(name: string, podAccount: string, answering: Workload): Promise<void> {
    const { chain, key, roots } = answering.identity;
    const pem = formatCertificates(chain);
    const leaf: KeyPair = { certificate: pem, chain: pem, key: key.toPem() };
    const { port } = await exposed(await startUpstream({ leaf, roots: formatCertificates(roots) }));
    const meta = { name, namespace: SHOP };
    const hostname = `${name}.${SHOP}.svc.cluster.local`;
    await lab.apply(
      {
        ...{ apiVersion: 'v1', kind: 'Service' },
        metadata: { ...meta, labels: { mesh: 'istio' }, annotations: { 'meshcert.dev/allow-from': GATEWAYS } },
        spec: { selector: { app: name }, ports: [{ name: 'https', port }] },
      },
      {
        ...{ apiVersion: 'v1', kind: 'Pod' },
        metadata: { ...meta, name: `${name}-1`, labels: { app: name } },
        spec: { serviceAccountName: podAccount, containers: [{ name: 'web', image: 'web' }] },
      },
    );
    await lead(name, 'istio', { fqdn: { hostname, port } });
  }
  async function lead(name: string, mesh: string, endpoint: object): Promise<void> {
    await lab.apply(backend(name, mesh, { endpoints: [endpoint] }));
    await eventually(`a policy for ${name}`, async () => (await policyOf(mesh, name)).spec !== undefined, agent.log);
    await lab.apply(inGateways(route(name, [edge], backendRef(name))));
  }
  const backend = (name: string, mesh: string, spec: object): ApplyObject => ({
    ...{ apiVersion: EXTENSIONS, kind: 'Backend', spec },
    metadata: { name, namespace: GATEWAYS, labels: { mesh } },
  });
  const inGateways = (object: ApplyObject): ApplyObject => ({
    ...object,
    metadata: { ...object.metadata, namespace: GATEWAYS },
  });
  const policyOf = (mesh: string, name: string) => lab.read(inGateways(policy(`${mesh}-${name}.backend`)));
  const published = async (secret: string) => {
    const { body } = await lab.apiserver.call('GET', `/api/v1/namespaces/${GATEWAYS}/secrets/${secret}`);
    const certificate = Buffer.from(body.data['tls.crt'], 'base64').toString();
    return serialOf({ certificate, chain: '', key: '' });
  };
  const shows = (path: string, serial: () => Promise<string>) =>
    eventually(
      `the certificate at ${path}`,
      async () => (await lab.ask(edge, path)).seen?.serial === (await serial()),
      () => agent.log() + lab.envoyGateway.log(),
    );
  const doctor = async (): Promise<string> => {
    let said = '';
    const write = (text: string) => {
      said += text;
    };
    const env = { KUBECONFIG: lab.apiserver.kubeconfigFile };
    const { signal } = new AbortController();
    await (await shippedMain())(['doctor', '--agent', 'none', '--no-issue'], {
      stdout: { write },
      stderr: { write },
      env,
      signal,
    });
    return said;
  };
  const statusOf = async (name: string) => (await agent.statuses()).find((one) => one.name === name)?.status;
  async function put(pair: KeyPair): Promise<KeyPair> {
    await writePair(files, pair, other.root);
    return pair;
  }
  const start = async () => {
    const given = documents(istiod, files);
    agent = await startAgentProcess({
      kubeconfig: await grantedKubeconfig(lab.apiserver, { namespace: GATEWAYS, documents: given }),
      documents: given,
      args: ['--namespace', GATEWAYS, '--observe', 'names'],
    });
  };

  before(async () => {
    other = await authority('other', 3 * DAY);
    lab = await startGatewayLab();
    for (const [namespace, name] of [
      ...['gateway', 'meshcert'].map((one) => [GATEWAYS, one]),
      ...['web', 'api'].map((one) => [SHOP, one]),
    ] as const) {
      const object = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } };
      await lab.apiserver.ensure(`/api/v1/namespaces/${namespace}/serviceaccounts`, object);
    }
    for (const name of ['web', 'impostor']) await lab.envoyGateway.resolve(`${name}.${SHOP}.svc.cluster.local`);
    istiod = kept(await startIstiod({ apiserver: lab.apiserver }));
    await put(await other.issue({ uri: [OTHER], ttlMs: DAY }));
    await lab.apply(edge);
    await start();
  });
  after(async () => {
    await agent?.stop();
    for (const one of open.reverse()) await one[Symbol.asyncDispose]();
    await lab?.[Symbol.asyncDispose]();
    discard(files);
  });
  const workload = async (serviceAccount: string) =>
    kept(
      await startIstioWorkload({
        ...{ apiserver: lab.apiserver, istiod, namespace: SHOP, serviceAccount },
        allow: () => true,
      }),
    );

  it('speaks mTLS with a workload of Istio, verified by the account of its pod; istiod makes no rule of the policy', async () => {
    await serve('web', 'web', await workload('web'));
    await shows('/web', () => published('istio-identity'));
    const { validation } = (await policyOf('istio', 'web')).spec as { validation: Record<string, unknown> };
    assert.deepEqual(validation.subjectAltNames, [{ type: 'URI', uri: `spiffe://cluster.local/ns/${SHOP}/sa/web` }]);
    // istiod has seen the policy, and says that it has nothing to do with it.
    const ignored = async () => {
      const { status } = await policyOf('istio', 'web');
      const { ancestors = [] } = (status ?? {}) as { ancestors?: { controllerName: string; conditions: object[] }[] };
      const [found] = ancestors.filter(({ controllerName }) => controllerName === 'istio.io/mesh-controller');
      return JSON.stringify(found ?? {}).includes('TargetNotFound');
    };
    await eventually("istiod's status", ignored, istiod.log);
    const all = (await istiod.debug('configz')) as readonly { kind: string; metadata: { namespace: string } }[];
    const rules = all.filter(({ kind }) => kind === 'DestinationRule');
    assert.deepEqual(rules, []);
    const live = async () => (await statusOf('istio'))?.conditions.find(({ type }) => type === 'Live');
    await eventually('Live', async () => (await live())?.reason === 'StatusAccepted', agent.log);
  });

  it('writes no policy for the Service itself, because istiod would take it', async () => {
    const states = async () => (await statusOf('services'))?.mappings.map(({ name, state }) => `${name} ${state}`);
    await eventually('it is said', async () => (await states())?.includes('web ERR_TARGET_MESH_POLICY') === true);
    const { body } = await lab.apiserver.call(
      'GET',
      `/apis/gateway.networking.k8s.io/v1/namespaces/${SHOP}/backendtlspolicies`,
    );
    assert.deepEqual(body.items, []);
  });

  it('refuses a workload with the certificate of another account', async () => {
    await serve('impostor', 'web', await workload('api'));
    const refused = async () => (await lab.refusal(edge, '/impostor')).includes('SAN_matcher');
    await eventually('503, because of the SAN', refused, lab.envoyGateway.log);
  });

  it('presents another certificate to another mesh behind the same Gateway, and each rotates by itself', async () => {
    const { port } = await exposed(
      await startUpstream({ leaf: await other.issue({ uri: ['spiffe://other/server'] }), roots: other.root }),
    );
    await lead('legacy', 'other', { ip: { address: '127.0.0.1', port } });
    await shows('/legacy', () => published('other-identity'));
    const next = serialOf(await put(await other.issue({ uri: [OTHER], ttlMs: 2 * DAY })));
    await shows('/legacy', async () => next);
    await shows('/web', () => published('istio-identity'));
    const checked = { address: `127.0.0.1:${port}`, state: 'ok', id: 'spiffe://other/server' };
    const found = async () => (await statusOf('other'))?.upstreams ?? [];
    await eventually('who answers', async () => isDeepStrictEqual(await found(), [checked]), agent.log);
  });

  it('says by the status and by doctor that a route of another namespace may not use a Backend, until it may', async () => {
    const { port } = await exposed(
      await startUpstream({ leaf: await other.issue({ uri: ['spiffe://other/server'] }), roots: other.root }),
    );
    await lab.apply(backend('far', 'other', { endpoints: [{ ip: { address: '127.0.0.1', port } }] }));
    await eventually('a policy', async () => (await policyOf('other', 'far')).spec !== undefined, agent.log);
    await lab.apply(route('far', [edge], { ...backendRef('far'), namespace: GATEWAYS }));
    await eventually('500', async () => (await lab.ask(edge, '/far')).status === 500, lab.envoyGateway.log);
    const live = async () => (await statusOf('other'))?.conditions.find(({ type }) => type === 'Live');
    const refused = async () =>
      /HTTPRoute shop\/far: ResolvedRefs is False, RefNotPermitted/.test((await live())?.message ?? '');
    await eventually('the reason', refused, agent.log);
    assert.equal((await live())?.reason, 'StatusRefused');
    assert.match(await doctor(), /error MC1801 HTTPRoute shop\/far\n/);

    await lab.apply(backendGrant('far'));
    await shows('/far', () => published('other-identity'));
    await eventually('Live', async () => (await live())?.reason === 'StatusAccepted', agent.log);
    assert.doesNotMatch(await doctor(), /MC1801/);
  });

  it('sends nothing, rather than plaintext, when its policy is deleted by hand, until the agent writes it again', async () => {
    await agent.stop();
    await lab.remove(inGateways(policy('istio-web.backend')));
    const statuses = new Set<number>();
    const refusals = new Set<string>();
    // The log lags behind the answers.
    const refusal = async () => {
      let flags = '';
      const isLogged = async () => {
        const line = await lab.envoyGateway.logged('/web');
        flags = line.response_flags;
        return line.response_code === 503;
      };
      await eventually('the log of the 503', isLogged, lab.envoyGateway.log);
      return flags;
    };
    await eventually(
      '500',
      async () => {
        const { status, seen } = await lab.ask(edge, '/web');
        statuses.add(status);
        assert.notEqual(seen?.tls, false, 'plaintext');
        if (status === 503) refusals.add(await refusal());
        return status === 500;
      },
      lab.envoyGateway.log,
    );
    await start();
    await shows('/web', () => published('istio-identity'));
    assert.deepEqual(
      [...statuses].filter((status) => ![200, 500, 503].includes(status)),
      [],
    );
    // Envoy may drop the cluster a moment before it learns of the route that answers 500: then it sends nothing either.
    assert.deepEqual(
      [...refusals].filter((flags) => flags !== 'NC'),
      [],
    );
  });
});
