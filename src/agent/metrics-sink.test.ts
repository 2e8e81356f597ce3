import assert from 'node:assert/strict';
import { it } from 'node:test';
import { AgentWorld } from '../../test/support/agent-world.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { Reporter } from './reporter.ts';
import { MetricsSink } from './sinks.ts';

it('sets the gauges after a restart that finds the status unchanged, and removes those of a forgotten MeshCertificate', async () => {
  await using world = await AgentWorld.start();
  const last = await world.report();
  assert.ok(world.status);
  const metrics = createMetrics({ version: 'test' });
  const restarted = new Reporter([new MetricsSink(metrics, world.clock)]);
  const certificate = { ...last.certificate, status: world.status } as MeshCertificate;
  const rotation = { kind: 'leaf', lagMs: undefined } as const;
  restarted.report({ ...last, certificate, rotation });
  restarted.failed(certificate, new Error('a failure'));
  const { name, namespace = '' } = certificate.metadata;
  assert.ok(metrics.notAfter.get({ namespace, name, mesh: world.status.mesh }));
  assert.ok(metrics.lastSuccess.get({ namespace, name }));
  assert.equal(metrics.breakerOpen.get({ namespace, name }), 0);
  restarted.report({ ...last, certificate, rotation, breakerOpenMs: 1 });
  assert.equal(metrics.breakerOpen.get({ namespace, name }), 1);
  assert.equal(metrics.rotations.get({ namespace, name, kind: 'leaf' }), 2);
  restarted.forget(certificate);
  assert.doesNotMatch(metrics.expose(), new RegExp(`name="${name}"`));
});
