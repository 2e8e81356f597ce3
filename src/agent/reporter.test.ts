import assert from 'node:assert/strict';
import { it } from 'node:test';
import { AgentWorld } from '../../test/support/agent-world.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { Reporter } from './reporter.ts';
import { StatusBoard } from './sinks.ts';

it('distinguishes a status that another replica wrote from our own', async () => {
  await using world = await AgentWorld.start();
  const last = await world.report();
  const reporter = new Reporter([]);
  const carrying = (status: object | undefined) => ({ ...last.certificate, status }) as MeshCertificate;
  assert.ok(reporter.agrees(carrying(undefined)), 'nothing was reported yet');
  reporter.report(last);
  assert.ok(world.status);
  const { lastRotationTime: _, ...others } = world.status;
  assert.ok(reporter.agrees(carrying({ ...others, conditions: [...others.conditions].reverse() })));
  assert.ok(!reporter.agrees(carrying({ ...others, fingerprint: 'another' })));
  const published = others.conditions.map((one) => (one.type === 'Published' ? { ...one, status: 'False' } : one));
  assert.ok(!reporter.agrees(carrying({ ...others, conditions: published })));
});

it('keeps no status of its own once the resource carries it', async () => {
  await using world = await AgentWorld.start();
  const last = await world.report();
  const board = new StatusBoard();
  let seen = 0;
  const reporter = new Reporter([board, { seen: () => (seen += 1) }]);
  reporter.report(last);
  const said = board.all()[0]?.status;
  const status = structuredClone(said);
  assert.ok(reporter.agrees({ ...last.certificate, status } as MeshCertificate));
  assert.equal(board.all()[0]?.status, status);
  assert.equal(seen, 1);
});
