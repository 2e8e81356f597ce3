import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { grantedKubeconfig } from './parts/agent-in-role.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import {
  envoyProxy,
  GATEWAYS,
  type GatewayLab,
  gateway,
  policy,
  route,
  SHOP,
  serialOf,
  service,
  startGatewayLab,
  startUpstream,
  type Upstream,
} from './parts/gateway-lab.ts';
import { writePair } from './parts/mesh-files.ts';
import { type Authority, authority, type KeyPair } from './servers/authority.ts';
import { CONTROLLER_NAME } from './servers/envoy-gateway.ts';
import type { ApplyObject } from './servers/kube-client.ts';
import { discard, scratchDir } from './servers/process.ts';

const DAY = 86_400_000;
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
/** The namespace of the Gateways; the MeshCertificates are in another. */
const EDGE = 'edge';
const ALLOW = { annotations: { 'meshcert.dev/allow-from': GATEWAYS } };

/** By a ReferenceGrant, and by the EnvoyProxy of the GatewayClass. */
const WAYS = { granted: 'Gateway', shared: 'EnvoyProxy' } as const;
type Way = keyof typeof WAYS;
const ways = Object.keys(WAYS) as readonly Way[];

const document = (way: Way, directory: string): string => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: ${way}, namespace: ${GATEWAYS}}
spec:
  file: {directory: ${directory}}
  gatewayApi:
    gateways: {selector: {matchLabels: {mesh: ${way}}}, namespaces: [${EDGE}]}
    clientCertificate: ${WAYS[way]}
    services: {selector: {matchLabels: {mesh: ${way}}}, namespaces: [${SHOP}, ${EDGE}]}
    subjectAltNames: ["${WEB}"]
`;

const inEdge = (object: ApplyObject, way: Way, spec: object = {}): ApplyObject => ({
  ...object,
  metadata: { name: object.metadata.name, namespace: EDGE, labels: { mesh: way }, ...ALLOW },
  spec: { ...(object.spec as object), ...spec },
});

const gateways = {
  granted: inEdge(gateway('granted'), 'granted'),
  shared: inEdge(gateway('shared'), 'shared', { gatewayClassName: 'shared' }),
};

const sharedClass = {
  ...{ apiVersion: 'gateway.networking.k8s.io/v1', kind: 'GatewayClass', metadata: { name: 'shared' } },
  spec: {
    controllerName: CONTROLLER_NAME,
    parametersRef: { group: 'gateway.envoyproxy.io', kind: 'EnvoyProxy', name: 'shared', namespace: GATEWAYS },
  },
};

describe('Gateways of another namespace on the real Envoy Gateway, the agent under the rendered Role', () => {
  let lab: GatewayLab;
  let mesh: Authority;
  let agent: AgentProcess;
  const dirs = { granted: '', shared: '' };
  const upstreams: Upstream[] = [];

  let ttlMs = DAY;
  async function rotate(way: Way): Promise<string> {
    ttlMs += 60_000;
    const pair: KeyPair = await mesh.issue({ uri: ['spiffe://cluster.local/ns/gw/sa/gateway'], ttlMs });
    await writePair(dirs[way], pair, mesh.root);
    return serialOf(pair);
  }
  const shows = (way: Way, serial: string) =>
    eventually(
      `the certificate ${serial}`,
      async () => (await lab.ask(gateways[way], `/${way}`)).seen?.serial === serial,
      () => agent.log() + lab.envoyGateway.log(),
    );

  before(async () => {
    mesh = await authority('mesh', 3 * DAY);
    lab = await startGatewayLab();
    await lab.apiserver.ensureNamespace(EDGE);
    for (const way of ways) {
      dirs[way] = scratchDir(`files-${way}`);
      await rotate(way);
    }
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'meshcert', namespace: GATEWAYS } };
    await lab.apiserver.ensure(`/api/v1/namespaces/${GATEWAYS}/serviceaccounts`, account);
    await lab.apiserver.kubectl(['apply', '-f', '-'], { input: JSON.stringify(sharedClass) });
    const documents = ways.map((way) => document(way, dirs[way])).join('---\n');
    const shared = envoyProxy('shared', {});
    await lab.apply({ ...shared, metadata: { ...shared.metadata, labels: { mesh: 'shared' } } });
    for (const way of ways) {
      const upstream = await startUpstream({ leaf: await mesh.issue({ uri: [WEB] }), roots: mesh.root });
      upstreams.push(upstream);
      await lab.envoyGateway.expose(upstream.port);
      const [first, ...rest] = service(way, upstream);
      assert.ok(first);
      const labelled = { ...first, metadata: { ...first.metadata, labels: { mesh: way }, ...ALLOW } };
      await lab.apply(labelled, ...rest, gateways[way]);
    }
    agent = await startAgentProcess({
      kubeconfig: await grantedKubeconfig(lab.apiserver, { namespace: GATEWAYS, documents }),
      documents,
      args: ['--namespace', GATEWAYS, '--observe', 'names'],
    });
  });
  after(async () => {
    await agent?.stop();
    await lab?.[Symbol.asyncDispose]();
    for (const one of upstreams) await one[Symbol.asyncDispose]();
    for (const dir of Object.values(dirs)) discard(dir);
  });

  for (const way of ways) {
    it(`presents the certificate, and each that follows, through ${way === 'granted' ? 'a ReferenceGrant' : 'the EnvoyProxy of the GatewayClass'}`, async () => {
      const wanted = policy(`${way}-${way}-https`);
      await eventually('a policy', async () => (await lab.read(wanted)).kind === 'BackendTLSPolicy', agent.log);
      const { spec, ...rest } = route(way, []);
      await lab.apply({
        ...rest,
        spec: { ...(spec as object), parentRefs: [{ name: way, namespace: EDGE }] },
      });
      await shows(way, await rotate(way));
      await shows(way, await rotate(way));
      const found = async () => (await agent.statuses()).find(({ name }) => name === way)?.status;
      const live = async () =>
        (await found())?.conditions.find(({ type }) => type === 'Live')?.reason === 'StatusAccepted';
      await eventually('Live', live, agent.log);
    });
  }
});
