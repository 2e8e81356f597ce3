import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PublicationStatus } from '../core/status.ts';
import { METRICS } from './definitions.ts';
import { createMetrics, forget, observeStatus } from './metrics.ts';
import { Metric } from './registry.ts';

const key = { namespace: 'emissary', name: 'istio' };

const status: PublicationStatus = {
  mesh: 'istio',
  notBefore: '2026-01-01T00:00:00Z',
  notAfter: '2026-01-02T00:00:00Z',
  renewalTime: '2026-01-01T15:00:00Z',
  roots: [
    { fingerprint: 'ab'.repeat(32), subject: 'O=cluster.local', notAfter: '2036-01-01T00:00:00Z', state: 'named' },
    { fingerprint: 'cd'.repeat(32), subject: 'O=cluster.local', notAfter: '2027-01-01T00:00:00Z', state: 'retained' },
  ],
  mappings: [],
  targets: [],
  rotations: 1,
  conditions: [
    { type: 'Ready', status: 'True', reason: 'Published', message: '', lastTransitionTime: '2026-01-01T00:00:00Z' },
    { type: 'Degraded', status: 'Unknown', reason: 'New', message: '', lastTransitionTime: '2026-01-01T00:00:00Z' },
  ],
};

test('values, labels and help are escaped as the format wants them', () => {
  const metric = new Metric({ name: 'm', type: 'gauge', help: 'a\\b\nc', labels: ['l'] });
  metric.set({ l: 'quote " back \\ line\n' }, 1.5);
  assert.equal(metric.expose(), '# HELP m a\\\\b\\nc\n# TYPE m gauge\nm{l="quote \\" back \\\\ line\\n"} 1.5\n');
});

test('a histogram counts cumulatively and ends at +Inf', () => {
  const metric = new Metric({ name: 'h', type: 'histogram', help: 'h', labels: [], buckets: [1, 2] });
  for (const value of [0.5, 1, 1.5, 99]) metric.observe({}, value);
  assert.deepEqual(metric.expose().trimEnd().split('\n').slice(2), [
    'h_bucket{le="1"} 2',
    'h_bucket{le="2"} 3',
    'h_bucket{le="+Inf"} 4',
    'h_sum 102',
    'h_count 4',
  ]);
});

test('series with the same labels are one, whatever their order', () => {
  const metric = new Metric({ name: 'c_total', type: 'counter', help: 'c', labels: ['a', 'b'] });
  metric.inc({ a: '1', b: '2' });
  metric.inc({ b: '2', a: '1' }, 2);
  assert.equal(metric.get({ a: '1', b: '2' }), 3);
  metric.inc({ a: '1', b: '3' });
  metric.remove({ b: '2' });
  assert.equal(metric.expose().trimEnd().split('\n').slice(2).join(), 'c_total{a="1",b="3"} 1');
});

test('a status sets its gauges, and what is gone from it is gone from them', () => {
  const metrics = createMetrics({ version: '1' });
  observeStatus(metrics, key, status);
  assert.equal(metrics.notAfter.get({ ...key, mesh: 'istio' }), Date.parse('2026-01-02T00:00:00Z') / 1000);
  assert.equal(metrics.roots.get({ ...key, state: 'retained' }), 1);
  assert.equal(metrics.rootNotAfter.get({ ...key, fingerprint: 'ab'.repeat(8) }), 2082758400);
  assert.equal(metrics.condition.get({ ...key, type: 'Degraded' }), -1);
  const { notAfter: _, ...without } = status;
  observeStatus(metrics, key, { ...without, roots: [], conditions: [] });
  assert.equal(metrics.notAfter.get({ ...key, mesh: 'istio' }), undefined);
  assert.equal(metrics.roots.get({ ...key, state: 'named' }), 0);
  assert.equal(metrics.rootNotAfter.get({ ...key, fingerprint: 'ab'.repeat(8) }), undefined);
});

test('a MeshCertificate that is forgotten leaves no series', () => {
  const metrics = createMetrics({ version: '1' });
  observeStatus(metrics, key, status);
  metrics.failures.inc({ ...key, code: 'ERR_MESH_UNREACHABLE' });
  metrics.rotations.inc({ ...key, kind: 'leaf' });
  metrics.lastSuccess.set(key, 1);
  metrics.breakerOpen.set(key, 0);
  metrics.live.set(key, 1);
  forget(metrics, key);
  assert.doesNotMatch(metrics.expose(), /name="istio"/);
});

test('names follow the conventions of Prometheus', () => {
  for (const { name, type, help, labels } of Object.values(METRICS)) {
    assert.match(name, /^(meshcert|process|nodejs)_[a-z_]+$/);
    assert.equal(name.endsWith('_total'), type === 'counter', name);
    assert.match(help, /^[0-9A-Z].*\.$/, name);
    assert.equal(new Set(labels).size, labels.length, name);
  }
});
