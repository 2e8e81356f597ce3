import assert from 'node:assert/strict';
import { it } from 'node:test';
import { AgentWorld } from '../../test/support/agent-world.ts';

it('an adapter that cannot be opened is a failure in the status, and recovers', async () => {
  await using world = await AgentWorld.start();
  world.mesh.broken = new TypeError('Invalid URL');
  world.run();
  await world.untilCode('ERR_MESH_CONFIG');
  assert.match(world.status?.lastError?.message ?? '', /^spec\.istio cannot be used: Invalid URL; correct/);
  assert.equal(world.condition('Degraded')?.reason, 'MeshConfig');
  assert.ok(world.lines.filter((line) => line.includes('Invalid URL')).length <= 3, world.lines.join('\n'));
});
