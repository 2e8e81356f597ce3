import assert from 'node:assert/strict';
import { it } from 'node:test';
import { AgentWorld } from '../support/agent-world.ts';

it('a status says that what it follows cannot be read, and no longer once it can', async () => {
  await using world = await AgentWorld.start();
  const ref = { namespace: 'emissary', name: 'roots' };
  world.api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata: ref, data: {} });
  world.mesh.configMap = ref;
  world.run();
  await world.untilReady();
  const leaf = await world.leaf();
  await world.api.outage(true);
  await world.untilCode('ERR_KUBE_UNREACHABLE');
  assert.equal(world.condition('Degraded')?.status, 'True');
  await world.api.outage(false);
  await world.until('the end of the failure', () => world.condition('Degraded')?.status === 'False');
  assert.equal(await world.leaf(), leaf);
  assert.equal(world.mesh.issued, 1);
});
