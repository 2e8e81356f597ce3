import assert from 'node:assert/strict';
import { it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { startAgentInRole } from './parts/agent-in-role.ts';
import { eventually } from './parts/eventually.ts';
import {
  envoyProxy,
  GATEWAYS,
  gateway,
  pod,
  policy,
  portOf,
  route,
  SHOP,
  service,
  startGatewayLab,
  startUpstream,
  useProxy,
} from './parts/gateway-lab.ts';
import { selected, shortConnections } from './parts/gateway-traffic.ts';
import { startLoad } from './parts/load.ts';
import { linkerdUpstream } from './parts/onboard-meshes.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { authority } from './servers/authority.ts';
import { startLinkerdJudge } from './servers/linkerd-judge.ts';

const MINUTE = 60_000;

it('Envoy Gateway presents leaves of the identity service of Linkerd to TLS 1.3 servers that have such leaves, and refuses others', async () => {
  await using lab = await startGatewayLab();
  const { apiserver, envoyGateway } = lab;
  await prepareCluster(apiserver, { [GATEWAYS]: ['gateway'], [SHOP]: ['web', 'api'], linkerd: [] });
  const root = await authority('root.linkerd.cluster.local');
  await using judge = await startLinkerdJudge({ apiserver, root, lifetime: '1m', skew: '5s' });
  // The leaves of the servers outlive the test: another instance with the same root issues them.
  await using lasting = await startLinkerdJudge({ apiserver, root });
  const [web, api] = [
    await linkerdUpstream(apiserver, lasting, 'web'),
    await linkerdUpstream(apiserver, lasting, 'api'),
  ];
  await using upstream = await startUpstream(web);
  // It answers to the name of the other, as a proxy that is not Linkerd's might.
  await using impostor = await startUpstream({ ...api, proxyOf: judge.identity(SHOP, 'web') });
  for (const { port } of [upstream, impostor]) await envoyGateway.expose(port);
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  const place = { namespace: GATEWAYS, identity: 'linkerd-identity', ca: 'linkerd-ca', form: 'dns' } as const;
  await using pair = watchPair(kube, place);
  const at = selected(gateway('linkerd', useProxy('linkerd')), 'linkerd');
  const meshed = (name: string) => {
    const object = pod(`${name}-1`, 'web');
    return { ...object, metadata: { ...object.metadata, labels: { 'linkerd.io/control-plane-ns': 'linkerd' } } };
  };
  await lab.apply(envoyProxy('linkerd', {}), at, shortConnections('linkerd'));
  for (const [name, to] of [
    ['web', upstream],
    ['impostor', impostor],
  ] as const) {
    const behind = meshed(name);
    const [front, ...slices] = service(name, to, behind);
    assert.ok(front);
    await lab.apply(behind, selected(front, 'linkerd'), ...slices);
  }
  const labels = 'selector: {matchLabels: {mesh: linkerd}}';
  await using agent = await startAgentInRole(apiserver, {
    namespace: GATEWAYS,
    documents: `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: linkerd, namespace: ${GATEWAYS}}
spec:
  linkerd: {serviceAccount: {name: gateway}, address: "${judge.tlsAddress}"}
  gatewayApi:
    gateways: {${labels}}
    services: {${labels}, namespaces: [${SHOP}]}
`,
  });
  for (const name of ['web', 'impostor']) {
    const ours = policy(`linkerd-${name}-https`);
    await eventually(`the policy of ${name}`, async () => (await lab.read(ours)).spec !== undefined, agent.log);
    const { validation } = (await lab.read(ours)).spec as { validation: Readonly<Record<string, unknown>> };
    assert.deepEqual([validation.hostname, validation.subjectAltNames], [judge.identity(SHOP, 'web'), undefined]);
    await lab.apply(route(name, [at]));
  }
  const first = async () => {
    const { seen } = await lab.ask(at, '/web');
    return seen?.tls === true && seen.version === 'TLSv1.3' && seen.sni === judge.identity(SHOP, 'web');
  };
  await eventually('an answer over TLS 1.3', first, () => agent.log() + envoyGateway.log());
  const refused = async () => /^UF .*SAN/.test(await lab.refusal(at, '/impostor'));
  await eventually('the refusal of the other name', refused, () => agent.log() + envoyGateway.log());

  const load = startLoad(`http://127.0.0.1:${await envoyGateway.port(portOf(at))}/web`, '', 25);
  try {
    await pair.until(() => pair.leaves.length >= 2, 2 * MINUTE, 'the first rotation');
    await judge.replaceIssuer();
    await pair.until(() => pair.leaves.length >= 4, 3 * MINUTE, 'a rotation under the new issuer');
  } finally {
    await load.stop();
  }
  console.log(`${load.answered} answered, ${load.failed} failed, ${pair.leaves.length} leaves, 2 issuers`);
  assert.deepEqual([load.failures, pair.violations, await agent.refusals()], [[], [], []], agent.log());
  assert.deepEqual(pair.leaves.at(-1)?.names.dns, [judge.identity(GATEWAYS, 'gateway')]);
  assert.ok(load.answered > 0);
});
