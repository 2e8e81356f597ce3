import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Istio, startIstio } from '../../sandbox/istio/istio.ts';

import { ROOT } from '../../scripts/tree.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { microTime } from '../../src/kube/lease.ts';
import { peer } from './build.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { freePorts } from './servers/loopback.ts';
import { output } from './servers/process.ts';

const MCERTS = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates';

interface Verdict {
  readonly name: string;
  readonly kstatus: string;
  readonly message: string;
  readonly argo: string;
  readonly argoMessage: string;
}

let server: KubeApiserver;
let istio: Istio;
let agent: AgentProcess;
let closed: number;

before(async () => {
  [server, istio] = await Promise.all([
    startKubeApiserver(),
    startIstio({
      authenticate: (jwt) => {
        const { sub } = JSON.parse(Buffer.from(jwt.split('.')[1] ?? '', 'base64url').toString());
        const [, , namespace = '', account = ''] = String(sub).split(':');
        return { namespace, account };
      },
      leafLifetimeMs: 24 * 3_600_000,
    }),
  ]);
  closed = (await freePorts('http')).http;
  await prepareCluster(server, { emissary: ['gateway'] });
  await server.ensure('/api/v1/namespaces/emissary/configmaps', {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'istio-ca-root-cert', namespace: 'emissary' },
    data: { 'root-cert.pem': istio.rootPem },
  });
  await server.kubectl(['apply', '--server-side', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
  await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev', '--timeout=30s']);
});
after(async () => {
  await agent?.stop();
  await istio?.stop();
  await server?.stop();
});

const create = (name: string, { address = istio.address, ...spec }: Record<string, unknown> = {}) =>
  server.ensure(MCERTS, {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: 'emissary' },
    spec: {
      istio: { ca: { address, serverName: istio.serverName, serviceAccount: 'gateway' } },
      tlsContext: { enabled: false },
      ...spec,
    },
  });

const patch = (name: string, spec: object) =>
  server.kubectl(['patch', 'mcert', name, '-n', 'emissary', '--type=merge', '-p', JSON.stringify({ spec })]);

async function judged(name: string): Promise<Verdict> {
  const input = await server.kubectl(['get', 'mcert', '-n', 'emissary', '-o', 'json']);
  const script = join(ROOT, 'deploy/argocd/health.lua');
  const verdicts = JSON.parse(await output(await peer('status-judge'), [script], { input })) as Verdict[];
  const verdict = verdicts.find((one) => one.name === name);
  assert.ok(verdict, input);
  return verdict;
}

const statusOf = async (name: string): Promise<PublicationStatus | undefined> =>
  (await server.call('GET', `${MCERTS}/${name}`)).body.status;

/** Polls until kstatus says this; the verdict is what a tool would show. */
async function becomes(name: string, kstatus: string, argo: string): Promise<Verdict> {
  let last: Verdict | undefined;
  await eventually(
    `${name} ${kstatus} and ${argo}`,
    async () => {
      last = await judged(name);
      return last.kstatus === kstatus && last.argo === argo;
    },
    () => `${JSON.stringify(last)}\n${agent?.log() ?? ''}`,
  );
  return last as Verdict;
}

test('a resource that no agent has seen is in progress', async (t) => {
  await create('ready');
  const verdict = await judged('ready');
  t.diagnostic(JSON.stringify(verdict));
  assert.deepEqual([verdict.kstatus, verdict.argo], ['InProgress', 'Progressing']);
  assert.equal((await statusOf('ready'))?.observedGeneration, -1);
  const table = await server.kubectl(['get', 'mcert', '-n', 'emissary']);
  assert.match(table, /^ready +\S* *\d+s?$/m, 'the columns are empty');
});

test('it is current once it is published', async (t) => {
  agent = await startAgentProcess({ kubeconfig: server.kubeconfigFile, args: ['--namespace', 'emissary'] });
  t.diagnostic(JSON.stringify(await becomes('ready', 'Current', 'Healthy')));
  const status = await statusOf('ready');
  assert.equal(status?.observedGeneration, 1);
  assert.deepEqual(
    status.conditions.filter(({ type }) => /Reconciling|Stalled/.test(type)),
    [],
  );
});

test('a spec that was just changed is in progress until the agent has published it', async (t) => {
  await agent.kill('SIGSTOP');
  await patch('ready', { secretName: 'another-name' });
  const verdict = await judged('ready');
  t.diagnostic(JSON.stringify(verdict));
  assert.deepEqual([verdict.kstatus, verdict.argo], ['InProgress', 'Progressing']);
  await agent.kill('SIGCONT');
  await becomes('ready', 'Current', 'Healthy');
  assert.equal((await statusOf('ready'))?.observedGeneration, 2);
});

test('a refused spec has failed, as a new resource and as a change, and a correction ends that', async (t) => {
  // The names of the first are taken.
  await create('refused', { secretName: 'another-name' });
  const verdict = await becomes('refused', 'Failed', 'Degraded');
  t.diagnostic(JSON.stringify(verdict));
  assert.match(verdict.message, /ERR_CONFIG: .*another-name/);
  await create('edited');
  await becomes('edited', 'Current', 'Healthy');
  await patch('edited', { secretName: 'another-name' });
  t.diagnostic(JSON.stringify(await becomes('edited', 'Failed', 'Degraded')));
  // The last valid one is still published.
  assert.equal((await statusOf('edited'))?.conditions.find(({ type }) => type === 'Ready')?.status, 'True');
  // A rotation meanwhile does not hide it.
  const rotations = (await statusOf('edited'))?.rotations ?? 0;
  await server.kubectl(['annotate', 'mcert', 'edited', '-n', 'emissary', 'meshcert.dev/renew=now']);
  await eventually('a rotation', async () => ((await statusOf('edited'))?.rotations ?? 0) > rotations, agent.log);
  assert.equal((await judged('edited')).kstatus, 'Failed');
  await patch('edited', { secretName: 'edited-name' });
  await becomes('edited', 'Current', 'Healthy');
});

test('a change that changes nothing published is current again, at its generation', async (t) => {
  const before = await statusOf('edited');
  await patch('edited', { trust: { retain: '36h' } });
  await eventually(
    'the new generation',
    async () => ((await statusOf('edited'))?.observedGeneration ?? 0) > (before?.observedGeneration ?? 0),
    agent.log,
  );
  t.diagnostic(JSON.stringify(await becomes('edited', 'Current', 'Healthy')));
  assert.equal((await statusOf('edited'))?.rotations, before?.rotations);
});

test('a spec that was refused before the agent led has failed once it leads', async (t) => {
  await agent.stop();
  const lease = (spec: object) =>
    server.kubectl(['patch', 'lease', 'meshcert', '-n', 'emissary', '--type=merge', '-p', JSON.stringify({ spec })]);
  await lease({ holderIdentity: 'another', leaseDurationSeconds: 3600, renewTime: microTime(Date.now()) });
  agent = await startAgentProcess({ kubeconfig: server.kubeconfigFile, args: ['--namespace', 'emissary'] });
  await create('early', { secretName: 'edited-name' });
  await eventually('the refusal', async () => /early.*ERR_CONFIG|ERR_CONFIG.*early/.test(agent.log()), agent.log);
  assert.deepEqual(
    [(await judged('early')).kstatus, (await statusOf('early'))?.observedGeneration],
    ['InProgress', -1],
  );
  await lease({ holderIdentity: '' });
  t.diagnostic(JSON.stringify(await becomes('early', 'Failed', 'Degraded')));
});

test('a mesh that does not answer is in progress, with the reason', async (t) => {
  await create('unreachable', { address: `127.0.0.1:${closed}` });
  const verdict = await becomes('unreachable', 'InProgress', 'Progressing');
  await eventually('the reason', async () => /ERR_MESH_\w+: /.test((await judged('unreachable')).message), agent.log);
  t.diagnostic(JSON.stringify([verdict, await judged('unreachable')]));
  assert.ok((await statusOf('unreachable'))?.conditions.some(({ type }) => type === 'Reconciling'));
});

test('a paused resource is suspended for Argo CD', async (t) => {
  await patch('edited', { paused: true });
  t.diagnostic(JSON.stringify(await becomes('edited', 'Current', 'Suspended')));
});

test('a resource whose deletion waits is terminating', async (t) => {
  await create('deleted', { deletionPolicy: 'Delete' });
  await becomes('deleted', 'Current', 'Healthy');
  await agent.kill('SIGSTOP');
  await server.kubectl(['delete', 'mcert', 'deleted', '-n', 'emissary', '--wait=false']);
  const verdict = await judged('deleted');
  t.diagnostic(JSON.stringify(verdict));
  assert.deepEqual([verdict.kstatus, verdict.argo], ['Terminating', 'Progressing']);
  await agent.kill('SIGCONT');
});
