import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { ROOT } from '../../scripts/tree.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { gateways } from '../../src/gateways.ts';
import { say } from '../support/io.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { startIstioWorkload } from './parts/istio-workload.ts';
import { prepareCluster } from './parts/prepare.ts';
import { startTcpProxy } from './parts/tcp-proxy.ts';
import { startIstiod } from './servers/istiod.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';
import { output, scratchDir } from './servers/process.ts';
import { startPrometheus } from './servers/prometheus.ts';

const idOf = (account: string) => `spiffe://cluster.local/ns/emissary/sa/${account}`;
const WAIT = ['wait', '-n', 'emissary', 'mcert/istio', '--timeout=90s'];

const document = (address: string, serverName: string, upstreams: object) => ({
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  metadata: { name: 'istio', namespace: 'emissary' },
  spec: {
    istio: { ca: { address, serverName, serviceAccount: 'emissary-ingress' } },
    mappings: { selector: { matchLabels: { mesh: 'istio' } } },
    upstreams: { interval: '10s', ...upstreams },
  },
});

it('an impostor with a certificate of the same istiod is reported to kubectl and Prometheus, under the shipped Role', async () => {
  await using apiserver = await startKubeApiserver();
  await prepareCluster(apiserver, {
    emissary: ['emissary-ingress', 'meshcert', 'web', 'impostor'],
    'istio-system': [],
  });
  const definition = customResourceDefinition(adapters, gateways);
  await apiserver.ensure('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', definition);
  await apiserver.kubectl(['wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all']);
  await using istiod = await startIstiod({ apiserver });
  const workload = (serviceAccount: string) =>
    startIstioWorkload({ apiserver, istiod, namespace: 'emissary', serviceAccount, allow: () => true });
  await using web = await workload('web');
  await using impostor = await workload('impostor');
  let answering = web;
  await using proxy = await startTcpProxy(() => answering.upstream.port);

  // `localhost` is the name of a Service here, and the name that leads to the proxy.
  const meta = (name: string, labels: object = {}) => ({ name, namespace: 'emissary', labels });
  const objects = [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: meta('localhost'),
      spec: { selector: { app: 'web' }, ports: [{ port: proxy.port }] },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: meta('web-1', { app: 'web' }),
      spec: { serviceAccountName: 'web', containers: [{ name: 'web', image: 'web' }] },
    },
    {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'Mapping',
      metadata: meta('web', { mesh: 'istio' }),
      spec: { hostname: '*', prefix: '/', service: `https://localhost:${proxy.port}` },
    },
  ];
  const apply = (...items: readonly object[]) =>
    apiserver.kubectl(['apply', '-f', '-'], { input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }) });
  await apply(...objects);

  const dir = scratchDir('upstreams');
  const asked = (upstreams: object) => document(istiod.secureAddress, istiod.serverName, upstreams);
  const file = join(dir, 'mesh.yaml');
  await writeFile(file, JSON.stringify(asked({ serviceAccounts: true })));
  const roles = await say(['render', '--rbac', '-f', file]);
  assert.equal(roles.code, 0, roles.stderr);
  await apiserver.kubectl(['apply', '-f', '-'], { input: roles.stdout });
  const token = await apiserver.serviceAccountToken({
    namespace: 'emissary',
    name: 'meshcert',
    audience: 'https://kubernetes.default.svc.cluster.local',
  });
  await using agent = await startAgentProcess({
    kubeconfig: await apiserver.kubeconfigFor('meshcert', token),
    args: ['-n', 'emissary', '--observe', 'names'],
  });
  await using prometheus = await startPrometheus(dir, {
    global: { scrape_interval: '1s', evaluation_interval: '1s' },
    rule_files: [join(ROOT, 'deploy/alerts/meshcert.yaml')],
    scrape_configs: [{ job_name: 'meshcert', static_configs: [{ targets: [new URL(agent.url).host] }] }],
  });
  const alert = async () => {
    const { alerts } = (await prometheus.ask('/api/v1/alerts')) as {
      alerts: readonly { labels: Readonly<Record<string, string>>; state: string }[];
    };
    return alerts.find(({ labels }) => labels.alertname === 'MeshCertificateUpstreamNotVerified');
  };
  const verified = async () => {
    const condition = '{.status.conditions[?(@.type=="UpstreamVerified")]}';
    const text = await apiserver.kubectl(['get', '-n', 'emissary', 'mcert/istio', '-o', `jsonpath=${condition}`]);
    return JSON.parse(text) as { status: string; reason: string; message: string };
  };
  const becomes = (reason: string) =>
    eventually(reason, async () => (await verified()).reason === reason, agent.log, 90_000);

  // Without an expectation, the message names who answers, and what to do.
  await apply(asked({}));
  await becomes('UpstreamUnnamed');
  assert.match(
    (await verified()).message,
    new RegExp(`ERR_UPSTREAM_UNNAMED: localhost:${proxy.port} presents ${idOf('web')}; nothing says`),
  );
  await apply(asked({ serviceAccounts: true }));
  await apiserver.kubectl([...WAIT, '--for=condition=UpstreamVerified']);

  answering = impostor;
  await apiserver.kubectl([...WAIT, '--for=condition=UpstreamVerified=False']);
  const { reason, message } = await verified();
  assert.equal(reason, 'ProbeUpstreamId');
  assert.match(message, new RegExp(`presents ${idOf('impostor')}, not ${idOf('web')}`));
  const series = `meshcert_upstream_verified{namespace="emissary",name="istio",upstream="localhost:${proxy.port}"} 0\n`;
  assert.ok((await agent.metrics()).includes(series));
  await output('promtool', ['check', 'metrics'], { input: await agent.metrics() });
  await eventually('the alert', async () => (await alert())?.state === 'firing', prometheus.log);
  const events = await apiserver.kubectl(['get', 'events', '-n', 'emissary']);
  assert.match(events, /Warning +UpstreamNotVerified +meshcertificate\/istio/);

  // What the message advises.
  const service = `localhost:${proxy.port}`;
  await apply(asked({ identities: [{ service, ids: [idOf('web'), idOf('impostor')] }] }));
  await apiserver.kubectl([...WAIT, '--for=condition=UpstreamVerified']);
  assert.deepEqual(
    [web.upstream.requests + impostor.upstream.requests, web.upstream.counts.handshakeFailures],
    [0, 0],
    'a check sends no request',
  );
  const refused = (await apiserver.audit()).filter(
    ({ user, responseStatus }) =>
      user.username === 'system:serviceaccount:emissary:meshcert' && responseStatus?.code === 403,
  );
  assert.deepEqual(
    refused.map(({ verb, requestURI }) => `${verb} ${requestURI}`),
    [],
  );
});
