import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';

const ROOTS = { name: 'roots', namespace: NAMESPACE };
const BUNDLE = 'toy.test:root:first';

describe('a resync of the composed agent', () => {
  it('lists the ConfigMap of the roots again', async () => {
    await using world = await AgentWorld.start();
    world.api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata: ROOTS, data: {} });
    world.mesh.configMap = ROOTS;
    world.run();
    await world.untilReady();
    await listedOnceMore(world, 'configmaps');
  });

  it('lists the ClusterTrustBundle of the roots again', async () => {
    await using world = await AgentWorld.start();
    world.api.serveTrustBundles('v1');
    const spec = { signerName: 'toy.test/root', trustBundle: world.mesh.ca.root.pem };
    const apiVersion = 'certificates.k8s.io/v1';
    world.api.put({ apiVersion, kind: 'ClusterTrustBundle', metadata: { name: BUNDLE }, spec });
    world.mesh.trustBundle = BUNDLE;
    world.run();
    await world.untilReady();
    await listedOnceMore(world, 'clustertrustbundles');
  });
});

async function listedOnceMore(world: AgentWorld, resource: string): Promise<void> {
  const lists = () => world.api.requests.count({ verb: 'list', resource });
  await world.until('the first list', () => lists() === 1);
  world.agent?.resync();
  await world.until('the list of the resync', () => lists() > 1);
  assert.equal(lists(), 2);
}
