import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { type AgentProcess, isPublished, lastError, startAgentProcess } from './parts/agent-process.ts';
import { DrillTable, seconds } from './parts/drill-table.ts';
import { eventually } from './parts/eventually.ts';
import { type PairWatch, watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { startConsul } from './servers/consul.ts';
import { configureCa } from './servers/consul-levers.ts';
import { fastRotation, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;

describe('drills on the mesh side', () => {
  const table = new DrillTable();
  let apiserver: KubeApiserver;
  let kube: Kube & { close(): void };

  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { istio: ['gateway'], consul: [], 'istio-system': [] });
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  });
  after(async () => {
    kube.close();
    await apiserver.stop();
    table.print();
  });

  const watched = (namespace: string) => watchPair(kube, { namespace, identity: 'mesh-identity', ca: 'mesh-ca' });
  const agentFor = (namespace: string, mesh: object, renewal: string) =>
    startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${namespace}}
spec:
  ${namespace}: ${JSON.stringify(mesh)}
  renewal: ${renewal}
`,
      args: ['--namespace', namespace, '--no-leader-elect'],
    });

  /** The CA is down from before the renewal is due until half of the leaf's life has passed in total. */
  async function outlives(
    drill: string,
    { pair, agent, downMs }: { pair: PairWatch; agent: AgentProcess; downMs: number },
    kill: () => Promise<void>,
    restart: () => Promise<void>,
  ): Promise<void> {
    const noLeaf = async (error: Error) => {
      throw new Error(`${error.message}\n${agent.log()}`);
    };
    await pair.until(() => pair.leaves.length === 1, MINUTE, 'the first leaf').catch(noLeaf);
    await eventually('the pair in force', () => isPublished(agent), agent.log);
    const { versions } = pair;
    await kill();
    await delay(downMs / 2);
    await eventually('the failure in the status', async () => (await lastError(agent)) !== undefined, agent.log);
    const code = await lastError(agent);
    await delay(downMs / 2);
    assert.equal(pair.leaves.length, 1);
    assert.equal(pair.versions, versions, 'nothing was written meanwhile');
    await restart();
    const back = performance.now();
    await pair.until(() => pair.leaves.length > 1, MINUTE, 'the next leaf').catch(noLeaf);
    const lateMs = performance.now() - back;
    const leftMs = (pair.leaves[0]?.notAfter ?? 0) - Date.now();
    assert.ok(leftMs > 0, 'the old leaf was good until the new one stood');
    assert.deepEqual(pair.violations, []);
    await eventually(
      'the end of the failure in the status',
      async () => (await lastError(agent)) === undefined,
      agent.log,
    );
    table.add(
      drill,
      'the old pair stays, untouched, and is replaced before it expires; the state says why',
      `${code}; renewed ${seconds(lateMs)} after it was back, ${seconds(leftMs)} before the old leaf's end; 0 writes meanwhile`,
    );
  }

  it('keeps the pair and renews it in time after istiod was killed for half of the leaf’s life', async () => {
    await using istiod = await startIstiod({ apiserver, env: { ...fastRotation } });
    await using pair = watched('istio');
    const { secureAddress: address, serverName } = istiod;
    const ca = { address, serverName, serviceAccount: 'gateway', ttl: '1m' };
    await using agent = await agentFor('istio', { trustDomain: 'cluster.local', ca }, '{at: 0.2, jitter: 0}');
    await outlives(
      'istiod killed −9 for half of a leaf’s life (1 min)',
      { pair, agent, downMs: 30_000 },
      () => istiod.kill('SIGKILL'),
      () => istiod.restart(),
    );
  });

  it('keeps the pair and renews it in time after Consul lost its server, and then its leader', async () => {
    await using consul = await startConsul({ acl: false, durable: true });
    // Consul backdates a leaf by a minute: this one has a minute to live.
    await configureCa(consul, { LeafCertTTL: '120s', SkipValidate: true });
    await using pair = watched('consul');
    const grpc = { addresses: [consul.grpcAddress], plaintext: true };
    const mesh = { service: 'gateway', datacenter: 'dc1', grpc };
    await using agent = await agentFor('consul', mesh, '{at: 0.2, jitter: 0}');
    await outlives(
      'Consul server killed −9 while the leaf (1 min) is due, back without a leader at first',
      { pair, agent, downMs: 25_000 },
      () => consul.kill('SIGKILL'),
      () => consul.restart(),
    );
  });
});
