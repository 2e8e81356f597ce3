import assert from 'node:assert/strict';
import { it } from 'node:test';
import { AgentWorld } from '../../test/support/agent-world.ts';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { MetricsSink } from './metrics-sink.ts';
import type { Report } from './report.ts';
import { Reporter, type Sink } from './reporter.ts';

it('sets the gauges after a restart that finds the status as it was', async () => {
  await using world = await AgentWorld.start();
  let last: Report | undefined;
  const sink: Sink = {
    status: (_status, _before, report) => {
      last = report;
    },
  };
  world.run({}, [sink]);
  await world.untilReady();
  assert.ok(last && world.status);
  const metrics = createMetrics({ version: 'test' });
  const restarted = new Reporter([new MetricsSink(metrics, world.clock)]);
  const certificate = { ...last.certificate, status: world.status } as MeshCertificate;
  restarted.report({ ...last, certificate, rotation: undefined });
  const { name, namespace = '' } = certificate.metadata;
  assert.ok(metrics.notAfter.get({ namespace, name, mesh: world.status.mesh }));
});
