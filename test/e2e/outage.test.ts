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

it('a source that cannot be read wakes nobody at each further attempt, and the status says since when', async () => {
  await using world = await AgentWorld.start();
  const ref = { namespace: 'emissary', name: 'roots' };
  world.api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata: ref, data: {} });
  world.mesh.configMap = ref;
  let reconciles = 0;
  world.run({}, [{ status: () => reconciles++ }]);
  await world.untilReady();
  await world.api.outage(true);
  const attempts = () => world.lines.filter((line) => line.includes('could not watch configmaps')).length;
  await world.until('two attempts', () => attempts() >= 2);
  await world.untilCode('ERR_KUBE_UNREACHABLE');
  const [before, since] = [reconciles, world.status?.lastError?.firstTime];
  await world.until('five more', () => attempts() >= 7);
  assert.equal(reconciles, before);
  assert.equal(world.status?.lastError?.firstTime, since);
  // What does look again says that it fails still.
  const now = world.clock.now();
  world.agent?.reconcilers.poke();
  await world.until('another look', () => reconciles > before);
  assert.ok(Date.parse(world.status?.lastError?.time ?? '') + 1_000 > now);
  assert.equal(world.status?.lastError?.firstTime, since);
});

it('a certificate that could not be written for half an hour is written at once when the API server is back', async () => {
  await using world = await AgentWorld.start();
  world.mesh.lifetimeMs = 86_400_000;
  world.run();
  await world.untilReady();
  const leaf = await world.leaf();
  await world.api.outage(true);
  world.agent?.reconcilers.find('emissary', 'istio')?.renew();
  await world.untilCode('ERR_KUBE_UNREACHABLE');
  const end = world.clock.now() + 1_800_000;
  await world.until('half an hour', () => world.clock.now() >= end, 10_000);
  await world.api.outage(false);
  const back = world.clock.now();
  await world.until('the new leaf', async () => (await world.leaf()) !== leaf);
  const waitedMs = world.clock.now() - back;
  // A watch is tried again within 30 s.
  assert.ok(waitedMs <= 35_000, `${waitedMs} ms`);
  assert.equal(world.mesh.issued, 2);
});
