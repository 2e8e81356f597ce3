import assert from 'node:assert/strict';
import { it } from 'node:test';
import { AgentWorld } from '../../test/support/agent-world.ts';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import type { Report } from './report.ts';
import { Reporter, type Sink } from './reporter.ts';

it('tells a status that another replica wrote from our own', async () => {
  await using world = await AgentWorld.start();
  let last: Report | undefined;
  const sink: Sink = {
    status: (_status, _before, report) => {
      last = report;
    },
  };
  world.run({}, [sink]);
  await world.untilReady();
  assert.ok(last);
  const reporter = new Reporter([]);
  const carrying = (status: object | undefined) => ({ ...last?.certificate, status }) as MeshCertificate;
  assert.ok(reporter.agrees(carrying(undefined)), 'nothing was told yet');
  reporter.report(last);
  assert.ok(world.status);
  const { lastRotationTime: _, ...others } = world.status;
  assert.ok(reporter.agrees(carrying({ ...others, conditions: [...others.conditions].reverse() })));
  assert.ok(!reporter.agrees(carrying({ ...others, fingerprint: 'another' })));
  const published = others.conditions.map((one) => (one.type === 'Published' ? { ...one, status: 'False' } : one));
  assert.ok(!reporter.agrees(carrying({ ...others, conditions: published })));
});
