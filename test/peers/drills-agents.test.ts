import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { agentWrites } from './parts/agent-writes.ts';
import { DrillTable, seconds } from './parts/drill-table.ts';
import { eventually } from './parts/eventually.ts';
import { askingSpec, type MeshCa, startMeshCa } from './parts/mesh-ca.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;
const FROZEN_MS = 30_000;

describe('drills on the agents', () => {
  const table = new DrillTable();
  const users = ['agent-a', 'agent-b'].map((name) => ({ name, token: randomUUID(), groups: ['system:masters'] }));
  let apiserver: KubeApiserver;
  let kube: Kube & { close(): void };

  before(async () => {
    apiserver = await startKubeApiserver({ users });
    await prepareCluster(apiserver, { frozen: ['gateway'], full: ['gateway'], closed: ['gateway'] });
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  });
  after(async () => {
    kube.close();
    await apiserver.stop();
    table.print();
  });

  const documentIn = (namespace: string, ca: MeshCa) => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${namespace}}
spec:
  istio: ${askingSpec(ca.istio)}
  renewal: {at: 0.1, jitter: 0}
`;
  const watched = (namespace: string) => watchPair(kube, { namespace, identity: 'mesh-identity', ca: 'mesh-ca' });

  it('does not let a leader write that was frozen beyond its Lease with a signed leaf in memory', async () => {
    const namespace = 'frozen';
    await using pair = watched(namespace);
    await using ca = await startMeshCa({ apiserver, namespaces: [namespace], leafLifetimeMs: 2 * MINUTE });
    const start = async (name: string): Promise<AgentProcess> =>
      startAgentProcess({
        kubeconfig: await apiserver.kubeconfigFor(name, users.find((user) => user.name === name)?.token ?? ''),
        documents: documentIn(namespace, ca),
        args: ['--namespace', namespace],
        env: { POD_NAME: name },
      });
    const holder = async () => {
      const { body } = await apiserver.call(
        'GET',
        `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/meshcert`,
      );
      return String(body?.spec?.holderIdentity ?? '').split('_')[0];
    };
    await using a = await start('agent-a');
    await pair.until(() => pair.leaves.length === 1, MINUTE, 'the first leaf');
    await using b = await start('agent-b');
    assert.equal(await holder(), 'agent-a');

    const frozen = new Promise<number>((resolve) => {
      ca.onAsk(async () => {
        ca.onAsk(undefined);
        await a.kill('SIGSTOP');
        resolve(performance.now());
      });
    });
    const frozenAt = await frozen;
    await eventually('the other as leader', async () => (await holder()) === 'agent-b', b.log);
    const tookMs = performance.now() - frozenAt;
    await pair.until(() => pair.leaves.length > 1, MINUTE, 'a leaf by the new leader');
    await delay(Math.max(0, frozenAt + FROZEN_MS - performance.now()));
    const known = pair.leaves.length;
    await a.kill('SIGCONT');
    await eventually('the frozen one awake as a follower', async () => /no longer leading/.test(a.log()), a.log);
    await pair.until(() => pair.leaves.length > known, MINUTE, 'one more rotation after it woke up');

    const { index } = await firstLeaseOf('agent-b', namespace);
    const late = (await agentWrites(apiserver, namespace)).filter(({ user }) => user.username === 'agent-a');
    const afterwards = new Set((await apiserver.audit()).slice(index).map(({ auditID }) => auditID));
    assert.deepEqual(
      late.filter(({ auditID }) => afterwards.has(auditID)),
      [],
      'writes of the frozen leader after the other took over',
    );
    assert.equal(await holder(), 'agent-b');
    assert.deepEqual(pair.violations, []);
    table.add(
      `leader frozen for ${seconds(FROZEN_MS)} by SIGSTOP while the CA signed for it, then SIGCONT`,
      'the other takes over; the frozen one writes nothing afterwards; never an older leaf over a newer',
      `taken over after ${seconds(tookMs)}; 0 late writes of ${late.length}; ${pair.leaves.length} leaves, 0 violations`,
    );
  });

  async function firstLeaseOf(username: string, namespace: string) {
    const events = await apiserver.audit();
    const index = events.findIndex(
      (event) =>
        event.user.username === username &&
        event.verb === 'update' &&
        event.objectRef?.resource === 'leases' &&
        event.objectRef.namespace === namespace &&
        event.responseStatus?.code === 200,
    );
    assert.ok(index >= 0, 'the other has written the Lease');
    return { index };
  }

  for (const [namespace, what, stdout] of [
    ['full', 'the disk of its log is full', '>/dev/full'],
    ['closed', 'whoever read its log has gone', '> >(exec true)'],
  ] as const) {
    it(`publishes and rotates although ${what}`, async () => {
      await using pair = watched(namespace);
      await using ca = await startMeshCa({ apiserver, namespaces: [namespace], leafLifetimeMs: MINUTE });
      await using agent = await startAgentProcess({
        kubeconfig: apiserver.kubeconfigFile,
        documents: documentIn(namespace, ca),
        args: ['--namespace', namespace, '--no-leader-elect'],
        stdout,
      });
      const { pid } = agent.daemon;
      await pair
        .until(() => pair.leaves.length >= 3, MINUTE, 'two rotations')
        .catch((error) => {
          throw new Error(`${error.message}\n${agent.log()}`);
        });
      const health = await fetch(`${agent.url}/healthz`);
      assert.equal(health.status, 200);
      assert.equal(agent.daemon.pid, pid);
      assert.deepEqual(pair.violations, []);
      table.add(
        what,
        'it lives on, rotates and is healthy',
        `${pair.leaves.length} leaves by one process, 0 violations`,
      );
    });
  }
});
