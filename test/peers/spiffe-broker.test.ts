import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { type AgentProcess, isPublished, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type Spire, startSpire } from './servers/spire.ts';

const MINUTE = 60_000;
const NAMESPACE = 'emissary';
const BROKER = 'spiffe://example.org/meshcert';
const LEAF_SECONDS = 30;

describe('the Broker API of SPIRE', () => {
  let apiserver: KubeApiserver;
  let kube: ReturnType<typeof connect>;
  let spire: Spire;
  let gatewayId: string;

  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { [NAMESPACE]: [], elsewhere: [] });
    await apiserver.ensure(`/apis/apps/v1/namespaces/${NAMESPACE}/deployments`, deployment());
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    spire = await startSpire({ version: 'next', broker: { id: BROKER, kubeconfig: apiserver.kubeconfigFile } });
    await spire.createEntry('/meshcert');
    const selectors = ['k8s:resource:deployments.apps', `k8s:namespace:${NAMESPACE}`, 'k8s:name:gateway'];
    gatewayId = await spire.createEntry('/gateway', { ttlSeconds: LEAF_SECONDS, selectors });
  });
  after(async () => {
    kube?.close();
    await spire?.stop();
    await apiserver?.stop();
  });

  const start = (namespace: string, broker: object): Promise<AgentProcess> =>
    startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: document(namespace, { socket: spire.socket, broker }),
      args: ['--namespace', namespace, '--no-leader-elect'],
    });
  const error = async (agent: AgentProcess) => (await agent.statuses())[0]?.status.lastError;
  const object = { plural: 'deployments', group: 'apps', name: 'gateway' };

  it('gives out the identity of a Deployment once RBAC lets the agent have it, and its rotations', async () => {
    await using pair = watchPair(kube, { namespace: NAMESPACE, identity: 'mesh-identity', ca: 'mesh-ca' });
    await using agent = await start(NAMESPACE, { socket: spire.brokerSocket, object });
    const log = () => `${agent.log().slice(-5_000)}\n${spire.log().slice(-4_000)}`;
    await eventually('the denial', async () => /impersonate-via-spire/.test((await error(agent))?.message ?? ''), log);
    assert.equal((await error(agent))?.code, 'ERR_MESH_DENIED');
    for (const [plural, one] of grants()) await apiserver.ensure(`/apis/rbac.authorization.k8s.io/v1/${plural}`, one);
    await eventually('the pair in force', () => isPublished(agent), log, 2 * MINUTE);
    await pair
      .until(() => pair.leaves.length >= 3, 2 * MINUTE, 'two rotations')
      .catch((cause) => {
        throw new Error(`${cause.message}\n${log()}`);
      });
    assert.deepEqual(new Set(pair.leaves.flatMap(({ names }) => names.uris)), new Set([gatewayId]));
    assert.deepEqual(pair.violations, []);
  });

  it('gives it out over TCP too', async () => {
    await using agent = await start(NAMESPACE, { address: spire.brokerAddress, object });
    const log = () => `${agent.log().slice(-5_000)}\n${spire.log().slice(-4_000)}`;
    await eventually('the pair in force', () => isPublished(agent), log);
    assert.equal((await agent.statuses())[0]?.status.id, gatewayId);
  });

  it('gives nothing out for an object that does not exist, nor for one of another namespace', async () => {
    for (const [namespace, name] of [
      [NAMESPACE, 'absent'],
      ['elsewhere', 'gateway'],
    ] as const) {
      await using agent = await start(namespace, { socket: spire.brokerSocket, object: { ...object, name } });
      const log = () => `${agent.log().slice(-5_000)}\n${spire.log().slice(-4_000)}`;
      await eventually('the refusal', async () => (await error(agent))?.code === 'ERR_MESH_DENIED', log);
      assert.match((await error(agent))?.message ?? '', /the object does not exist/);
    }
  });

  it('refuses an agent that is not in its list, and the agent refuses a server that is another', async () => {
    const other = await spire.createEntry('/nobody');
    try {
      for (const broker of [{ clientId: other }, { clientId: BROKER, serverId: other }]) {
        await using agent = await start(NAMESPACE, { socket: spire.brokerSocket, object, ...broker });
        const log = () => `${agent.log().slice(-5_000)}\n${spire.log().slice(-4_000)}`;
        await eventually('the refusal', async () => (await error(agent))?.code === 'ERR_MESH_TLS', log);
      }
    } finally {
      await spire.deleteEntry(other);
    }
  });
});

function document(namespace: string, config: object): string {
  return `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${namespace}}
spec:
  spiffe: ${JSON.stringify(config)}
`;
}

function deployment() {
  const labels = { app: 'gateway' };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'gateway', namespace: NAMESPACE },
    spec: {
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'gateway', image: 'gateway' }] } },
    },
  };
}

/** The rights by which SPIRE lets the broker have the object. */
function grants(): readonly (readonly [string, object])[] {
  const [apiVersion, apiGroup] = ['rbac.authorization.k8s.io/v1', 'rbac.authorization.k8s.io'];
  const metadata = { name: 'broker' };
  const rules = [{ apiGroups: ['apps'], resources: ['deployments'], verbs: ['impersonate-via-spire'] }];
  const roleRef = { apiGroup, kind: 'ClusterRole', name: 'broker' };
  const subjects = [{ apiGroup, kind: 'User', name: BROKER }];
  return [
    ['clusterroles', { apiVersion, kind: 'ClusterRole', metadata, rules }],
    ['clusterrolebindings', { apiVersion, kind: 'ClusterRoleBinding', metadata, roleRef, subjects }],
  ];
}
