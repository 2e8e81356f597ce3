import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { ROOT } from '../../scripts/tree.ts';
import { shippedMain } from '../support/io.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import {
  EXTENSIONS,
  GATEWAYS,
  type GatewayLab,
  gateway,
  pod,
  portOf,
  route,
  SHOP,
  service,
  startGatewayLab,
  startUpstream,
  type Upstream,
} from './parts/gateway-lab.ts';
import { type OnboardMesh, onboardConsul, onboardIstio, onboardLinkerd } from './parts/onboard-meshes.ts';
import { prepareCluster } from './parts/prepare.ts';
import type { EnvoyGatewayOptions } from './servers/envoy-gateway.ts';
import type { Istiod } from './servers/istiod.ts';
import type { ApplyObject } from './servers/kube-client.ts';

const HOST = `web.${SHOP}.svc.cluster.local`;
const ROLE_BINDING = `/apis/rbac.authorization.k8s.io/v1/namespaces/${GATEWAYS}/rolebindings/meshcert-onboard.${GATEWAYS}`;

type Join = (place: Parameters<typeof onboardIstio>[0]) => Promise<OnboardMesh>;

/** Envoy Gateway and a mesh, and a route that leads to a workload of the mesh in plaintext. */
class World implements AsyncDisposable {
  readonly edge = gateway('edge');
  readonly web = route('web', [this.edge]);
  readonly lab: GatewayLab;
  readonly #stops: (() => unknown)[] = [];
  #mesh: OnboardMesh | undefined;
  #upstream: Upstream | undefined;
  #agent: Promise<AgentProcess> | undefined;
  said = '';

  static async start(join: Join = onboardIstio, options: EnvoyGatewayOptions = {}): Promise<World> {
    const world = new World(await startGatewayLab(options));
    try {
      await world.#prepare(join);
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(lab: GatewayLab) {
    this.lab = lab;
  }

  get mesh(): OnboardMesh & { readonly istiod?: Istiod } {
    assert.ok(this.#mesh);
    return this.#mesh;
  }

  async #prepare(join: Join): Promise<void> {
    const { lab, edge, web } = this;
    const { apiserver, envoyGateway } = lab;
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'web', namespace: SHOP } };
    await apiserver.ensure(`/api/v1/namespaces/${SHOP}/serviceaccounts`, account);
    const mesh = await join({ apiserver, keep: (one) => this.#keep(one) });
    this.#mesh = mesh;
    // Like a workload in PERMISSIVE mode, it also answers plaintext, and says so.
    const upstream = this.#keep(await startUpstream(mesh.upstream));
    this.#upstream = upstream;
    await envoyGateway.expose(upstream.port);
    await envoyGateway.resolve(HOST);
    const bare = pod('web-1', 'web');
    const injected = { ...bare, metadata: { ...bare.metadata, ...mesh.injected } };
    await lab.apply(...(mesh.installation as readonly unknown[] as readonly ApplyObject[]));
    await lab.apply(edge, injected, ...service('web', upstream, injected), web);
    const answers = async () => (await lab.ask(edge, '/web')).seen?.tls === false;
    await eventually('plaintext, as it was before', answers, envoyGateway.log);
  }

  #keep<T extends AsyncDisposable>(one: T): T {
    this.#stops.push(() => one[Symbol.asyncDispose]());
    return one;
  }

  async flags(): Promise<readonly string[]> {
    const { name, settings } = this.mesh;
    const port = this.#upstream?.port;
    return [
      ...['--gateway', `${GATEWAYS}/edge`, '--mesh', name],
      ...settings.flatMap((one) => ['--set', one]),
      ...['--connect-to', `${HOST}:${port}=127.0.0.1:${port}`],
      ...['--gateway-url', `http://127.0.0.1:${await this.lab.envoyGateway.port(portOf(this.edge))}`],
    ];
  }

  async run(...argv: readonly string[]): Promise<number> {
    this.said += `$ meshcert ${argv.join(' ')}\n`;
    const write = (text: string) => {
      this.said += text;
    };
    const { signal } = new AbortController();
    const env = { KUBECONFIG: this.lab.apiserver.kubeconfigFile };
    return (await shippedMain())(argv, { stdout: { write }, stderr: { write }, env, signal });
  }

  /** With the account and the Roles that onboarding creates for it. */
  startAgent(): void {
    const { apiserver } = this.lab;
    const start = async () => {
      await eventually('the RoleBinding', async () => (await apiserver.call('GET', ROLE_BINDING)).status === 200);
      const audience = 'https://kubernetes.default.svc.cluster.local';
      const token = await apiserver.serviceAccountToken({ namespace: GATEWAYS, name: 'meshcert', audience });
      const kubeconfig = await apiserver.kubeconfigFor('meshcert', token);
      return startAgentProcess({
        kubeconfig,
        args: ['--namespace', GATEWAYS, '--observe', 'names', ...this.mesh.agentFlags],
      });
    };
    this.#agent = start();
    this.#agent.catch(() => {});
  }

  async log(): Promise<string> {
    return this.said + ((await this.#agent)?.log() ?? '');
  }

  async published(): Promise<X509Certificate> {
    const { body } = await this.lab.apiserver.call(
      'GET',
      `/api/v1/namespaces/${GATEWAYS}/secrets/${this.mesh.name}-identity`,
    );
    return new X509Certificate(Buffer.from(body.data['tls.crt'], 'base64'));
  }

  async names(path: string): Promise<string[]> {
    const { body } = await this.lab.apiserver.call('GET', path);
    return body.items.map(({ metadata }: ApplyObject) => metadata.name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#agent?.catch(() => undefined))?.stop();
    for (const stop of this.#stops.reverse()) await stop();
    await this.lab[Symbol.asyncDispose]();
  }
}

describe('meshcert onboard for Envoy Gateway: real API server, mesh, Envoy Gateway and Envoy', () => {
  for (const [name, join] of Object.entries({ Istio: onboardIstio, Consul: onboardConsul, Linkerd: onboardLinkerd })) {
    it(`goes from plaintext to mTLS in ${name} and back under load, and no request fails`, (t) =>
      thereAndBack(join, t));
  }

  it('leads a route back at once where Envoy Gateway does not read Backends', async () => {
    await using world = await World.start(onboardIstio, { backends: false });
    const original = (await world.lab.read(world.web)).spec;
    world.startAgent();
    assert.equal(await world.run('onboard', '--yes', ...(await world.flags())), 1, await world.log());
    assert.match(
      world.said,
      /HTTPRoute shop\/web ERR_ONBOARD_NOT_READY: reverted: .*Backend is disabled in Envoy Gateway/,
    );
    assert.deepEqual((await world.lab.read(world.web)).spec, original);
    const plain = async () => (await world.lab.ask(world.edge, '/web')).seen?.tls === false;
    await eventually('plaintext again', plain, () => world.said + world.lab.envoyGateway.log());
  });

  it('adds Envoy Gateway to the MeshCertificate by which Emissary is served, and both present one certificate', async () => {
    await using world = await World.start();
    const { apiserver } = world.lab;
    await prepareCluster(apiserver, { [GATEWAYS]: ['emissary'] });
    await apiserver.kubectl(['apply', '--server-side', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await apiserver.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
    assert.ok(world.mesh.istiod);
    const { secureAddress: address, serverName } = world.mesh.istiod;
    const given = {
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'mesh', namespace: GATEWAYS },
      spec: { istio: { ca: { address, serverName, serviceAccount: 'emissary' } } },
    };
    await apiserver.kubectl(['apply', '-f', '-'], { input: JSON.stringify(given) });
    world.startAgent();
    const flags = (await world.flags()).filter((flag) => flag !== '--set' && !flag.startsWith('istio.ca.'));
    assert.equal(await world.run('onboard', '--yes', ...flags), 0, await world.log());
    const secret = `/api/v1/namespaces/${GATEWAYS}/secrets/mesh-identity`;
    const { body } = await apiserver.call('GET', secret);
    const leaf = new X509Certificate(Buffer.from(body.data['tls.crt'], 'base64'));
    assert.equal(leaf.subjectAltName, `URI:spiffe://cluster.local/ns/${GATEWAYS}/sa/emissary`);
    const shows = async () => (await world.lab.ask(world.edge, '/web')).seen?.serial === leaf.serialNumber;
    await eventually('the certificate', shows, () => world.said + world.lab.envoyGateway.log());
    const contexts = `/apis/getambassador.io/v3alpha1/namespaces/${GATEWAYS}/tlscontexts`;
    await eventually('the TLSContext', async () => (await world.names(contexts)).includes('mesh'));
    const after = (
      await apiserver.call('GET', `/apis/meshcert.dev/v1alpha1/namespaces/${GATEWAYS}/meshcertificates/mesh`)
    ).body;
    assert.deepEqual(Object.keys(after.spec).sort(), ['gatewayApi', 'istio', 'tlsContext']);
    assert.deepEqual(after.spec.istio, given.spec.istio);
  });
});

async function thereAndBack(join: Join, t: TestContext): Promise<void> {
  await using world = await World.start(join);
  const { lab, edge, web } = world;
  const modes: string[] = [];
  const problems: string[] = [];
  let answered = 0;
  const stop = new AbortController();
  const load = (async () => {
    while (!stop.signal.aborted) {
      const { status, seen } = await lab.ask(edge, '/web');
      if (status === 200 && seen) answered += 1;
      else problems.push(`${status} after ${answered}`);
      const mode = seen ? `${seen.tls ? 'mTLS' : 'plaintext'} ${seen.serial ?? 'without certificate'}` : 'none';
      if (mode !== modes.at(-1)) modes.push(mode);
    }
  })().catch((error) => problems.push(String(error)));

  const flags = await world.flags();
  const original = (await lab.read(web)).spec;
  world.startAgent();
  assert.equal(await world.run('onboard', '--yes', ...flags), 0, await world.log());
  const leaf = await world.published();
  assert.match(leaf.subjectAltName ?? '', world.mesh.client);
  const shows = async () => (await lab.ask(edge, '/web')).seen?.serial === leaf.serialNumber;
  await eventually('the certificate', shows, () => world.said + lab.envoyGateway.log());
  assert.equal(await world.run('onboard', '--yes', ...flags), 0, world.said);
  assert.match(world.said, /Nothing to do: everything is as it should be\.\n$/);

  const [policy = ''] = await world.names(
    `/apis/gateway.networking.k8s.io/v1/namespaces/${GATEWAYS}/backendtlspolicies`,
  );
  const { body } = await lab.apiserver.call(
    'GET',
    `/apis/gateway.networking.k8s.io/v1/namespaces/${GATEWAYS}/backendtlspolicies/${policy}`,
  );
  assert.ok(world.mesh.accepts(body.spec.validation), JSON.stringify(body.spec.validation));
  const rules = ((await world.mesh.istiod?.debug('configz')) ?? []) as readonly { kind: string }[];
  assert.deepEqual(
    rules.filter(({ kind }) => kind === 'DestinationRule'),
    [],
  );

  assert.equal(await world.run('offboard', '--yes', '--namespace', GATEWAYS), 0, world.said);
  assert.deepEqual((await lab.read(web)).spec, original);
  const plain = async () => (await lab.ask(edge, '/web')).seen?.tls === false;
  await eventually('plaintext again', plain, () => world.said + lab.envoyGateway.log());
  stop.abort();
  await load;
  t.diagnostic(world.said);
  t.diagnostic(`answered ${answered}, failed ${problems.length}; ${modes.join(', then ')}`);
  assert.deepEqual(problems, []);
  assert.deepEqual(modes, [
    'plaintext without certificate',
    `mTLS ${leaf.serialNumber}`,
    'plaintext without certificate',
  ]);
  for (const path of [
    `/apis/${EXTENSIONS}/namespaces/${GATEWAYS}/backends`,
    `/apis/gateway.networking.k8s.io/v1beta1/namespaces/${GATEWAYS}/referencegrants`,
    `/apis/gateway.networking.k8s.io/v1/namespaces/${GATEWAYS}/backendtlspolicies`,
    `/apis/meshcert.dev/v1alpha1/namespaces/${GATEWAYS}/meshcertificates`,
    `/apis/rbac.authorization.k8s.io/v1/namespaces/${SHOP}/roles`,
  ]) {
    assert.deepEqual(await world.names(path), [], path);
  }
}
