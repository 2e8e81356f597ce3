import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';

const ROOTS = { name: 'roots', namespace: NAMESPACE };
const BUNDLE = 'toy.test:root:first';

describe('a resync of the composed agent', () => {
  it('reads the ConfigMap of the roots again', async () => {
    await using world = await AgentWorld.start();
    world.api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata: ROOTS, data: {} });
    world.mesh.configMap = ROOTS;
    world.run();
    await world.untilReady();
    await readOnceMore(world, 'configmaps');
  });

  it('reads the ClusterTrustBundle of the roots again', async () => {
    await using world = await AgentWorld.start();
    world.api.serveTrustBundles('v1');
    const spec = { signerName: 'toy.test/root', trustBundle: world.mesh.ca.root.pem };
    const apiVersion = 'certificates.k8s.io/v1';
    world.api.put({ apiVersion, kind: 'ClusterTrustBundle', metadata: { name: BUNDLE }, spec });
    world.mesh.trustBundle = BUNDLE;
    world.run();
    await world.untilReady();
    await readOnceMore(world, 'clustertrustbundles');
  });
});

async function readOnceMore(world: AgentWorld, resource: string): Promise<void> {
  const watches = () => world.api.requests.count({ verb: 'watch', resource });
  await world.until('the first watch', () => watches() === 1);
  world.agent?.resync();
  await world.until('the watch of the resync', () => watches() > 1);
  assert.equal(watches(), 2);
}
