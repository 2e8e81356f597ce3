import assert from 'node:assert/strict';
import { it } from 'node:test';
import { startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import {
  backend,
  backendRef,
  configMap,
  envoyProxy,
  fromSecret,
  GATEWAYS,
  gateway,
  policy,
  route,
  SHOP,
  secret,
  serialOf,
  service,
  startGatewayLab,
  startUpstream,
  useProxy,
} from './parts/gateway-lab.ts';
import { replaceFiles, writePair } from './parts/mesh-files.ts';
import { authority } from './servers/authority.ts';
import { discard, scratchDir } from './servers/process.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const CLIENT = 'spiffe://cluster.local/ns/gw/sa/gateway';
/** Two nudges come within this time of a publication. */
const NUDGED_MS = 120_000;

const document = (directory: string): string => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: edge, namespace: ${GATEWAYS}}
spec:
  file: {directory: ${directory}}
  gatewayApi:
    gateways: {selector: {matchLabels: {mesh: edge}}}
    services: {selector: {matchLabels: {mesh: edge}}, namespaces: [${SHOP}]}
    subjectAltNames: ["${WEB}"]
`;

it("a bundle that Envoy did not take because of somebody else's broken Secret arrives after the repair, and Live shows both", async (test) => {
  const [mesh, next] = [await authority('mesh'), await authority('next')];
  const files = scratchDir('live');
  test.after(() => discard(files));
  const pair = await mesh.issue({ uri: [CLIENT] });
  await writePair(files, pair, mesh.root);

  await using lab = await startGatewayLab();
  await using upstream = await startUpstream({ leaf: await mesh.issue({ uri: [WEB] }), roots: mesh.root });
  await using renewed = await startUpstream({ leaf: await next.issue({ uri: [WEB] }), roots: mesh.root });
  for (const { port } of [upstream, renewed]) await lab.envoyGateway.expose(port);
  const edge = gateway('edge', useProxy('edge'));
  const labelled = <T extends { readonly metadata: object }>(object: T): T => ({
    ...object,
    metadata: { ...object.metadata, labels: { mesh: 'edge' }, annotations: { 'meshcert.dev/allow-from': GATEWAYS } },
  });
  await lab.apply(envoyProxy('edge', {}), labelled(edge));
  for (const [name, to] of [
    ['web', upstream],
    ['renewed', renewed],
  ] as const) {
    const [first, ...rest] = service(name, to);
    assert.ok(first);
    await lab.apply(labelled(first), ...rest);
  }
  // Somebody else's, behind the same Gateway.
  const theirs = await mesh.issue({ uri: [CLIENT] });
  await lab.apply(
    configMap('their-ca', { 'ca.crt': mesh.root }),
    secret('theirs', theirs, SHOP),
    backend('theirs', upstream, fromSecret('theirs')),
    policy('theirs', { target: backendRef('theirs'), ca: 'their-ca', sans: [WEB] }),
    route('theirs', [edge], backendRef('theirs')),
  );
  let admin = '';
  await eventually('the proxy', async () => {
    admin = await lab.envoyGateway.adminUrl(`${GATEWAYS}/edge`).catch(() => '');
    return admin !== '';
  });
  await using agent = await startAgentProcess({
    kubeconfig: lab.apiserver.kubeconfigFile,
    documents: document(files),
    args: ['--namespace', GATEWAYS, '--gateway-diagnostics', `gatewayApi=${admin}`],
  });
  const log = () => agent.log() + lab.envoyGateway.log();
  for (const name of ['web', 'renewed']) {
    const wanted = policy(`edge-${name}-https`);
    await eventually('a policy', async () => (await lab.read(wanted)).kind === 'BackendTLSPolicy', log);
    await lab.apply(route(name, [edge]));
  }
  const live = async () => {
    const [found] = await agent.statuses();
    return found?.status.conditions.find(({ type }) => type === 'Live');
  };
  const shows = (path: string, serial: string) =>
    eventually(`the certificate at ${path}`, async () => (await lab.ask(edge, path)).seen?.serial === serial, log);
  await shows('/web', serialOf(pair));
  await shows('/theirs', serialOf(theirs));
  await eventually('Live', async () => (await live())?.reason === 'ProxyLoaded', log, NUDGED_MS);
  assert.equal((await lab.ask(edge, '/renewed')).status, 503, 'its root is not trusted yet');

  await lab.apply(secret('theirs', { ...theirs, key: (await mesh.issue({ uri: [CLIENT] })).key }, SHOP));
  const refused = async () => lab.envoyGateway.log().includes('KEY_VALUES_MISMATCH');
  await eventually('the refusal in the log', refused, log);
  await replaceFiles(files, { 'ca.crt': next.root + mesh.root });
  const bundle = async () => (await lab.read(configMap('edge-ca', {}))).data as Readonly<Record<string, string>>;
  await eventually('both roots', async () => (await bundle())['ca.crt']?.split('BEGIN').length === 3, log);
  await lab.apply(secret('theirs', theirs, SHOP));

  await eventually('the new root', async () => (await lab.ask(edge, '/renewed')).status === 200, log, NUDGED_MS);
  await eventually('Live again', async () => (await live())?.reason === 'ProxyLoaded', log, NUDGED_MS);
  assert.equal((await lab.ask(edge, '/web')).seen?.serial, serialOf(pair));
  test.diagnostic(`nudged: ${agent.log().includes('nudged the gateway')}`);
});
