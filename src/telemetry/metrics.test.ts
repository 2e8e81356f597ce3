import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PublicationStatus } from '../core/status.ts';
import { createMetrics, deriveSeries, forget, METRICS, Metric, type Observed } from './metrics.ts';

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

test('values, labels and help are escaped as the format requires', () => {
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

const nothingYet = { breakerOpen: false, lastSuccess: undefined, leaves: 0, bundles: 0 };

test('a status sets its gauges, and values that are gone from it are removed', () => {
  const metrics = createMetrics({ version: '1' });
  let known: Observed[] = [{ ...key, status, ...nothingYet }];
  deriveSeries(metrics, () => known);
  assert.equal(metrics.notAfter.get({ ...key, mesh: 'istio' }), Date.parse('2026-01-02T00:00:00Z') / 1000);
  assert.equal(metrics.roots.get({ ...key, state: 'retained' }), 1);
  assert.equal(metrics.rootNotAfter.get({ ...key, fingerprint: 'ab'.repeat(8) }), 2082758400);
  assert.equal(metrics.condition.get({ ...key, type: 'Degraded' }), -1);
  const { notAfter: _, ...without } = status;
  known = [{ ...key, status: { ...without, roots: [], conditions: [] }, ...nothingYet }];
  assert.equal(metrics.notAfter.get({ ...key, mesh: 'istio' }), undefined);
  assert.equal(metrics.roots.get({ ...key, state: 'named' }), 0);
  assert.equal(metrics.rootNotAfter.get({ ...key, fingerprint: 'ab'.repeat(8) }), undefined);
});

test('derived series have their labels in the defined order, whatever order they are given in', () => {
  const metrics = createMetrics({ version: '1' });
  deriveSeries(metrics, () => [{ ...key, status, breakerOpen: true, lastSuccess: 1500, leaves: 2, bundles: 1 }]);
  const lines = metrics.expose().split('\n');
  for (const line of [
    'meshcert_certificate_not_after_timestamp_seconds{namespace="emissary",name="istio",mesh="istio"} 1767312000',
    'meshcert_certificate_not_before_timestamp_seconds{namespace="emissary",name="istio",mesh="istio"} 1767225600',
    'meshcert_certificate_renewal_timestamp_seconds{namespace="emissary",name="istio",mesh="istio"} 1767279600',
    'meshcert_certificate_last_success_timestamp_seconds{namespace="emissary",name="istio"} 1.5',
    'meshcert_certificate_condition{namespace="emissary",name="istio",type="Ready"} 1',
    'meshcert_certificate_held{namespace="emissary",name="istio"} 0',
    'meshcert_roots{namespace="emissary",name="istio",state="named"} 1',
    'meshcert_root_not_after_timestamp_seconds{namespace="emissary",name="istio",fingerprint="abababababababab"} 2082758400',
    'meshcert_rotations_total{namespace="emissary",name="istio",kind="leaf"} 2',
    'meshcert_rotations_total{namespace="emissary",name="istio",kind="bundle"} 1',
    'meshcert_breaker_open{namespace="emissary",name="istio"} 1',
  ]) {
    assert.ok(lines.includes(line), line);
  }
  const metric = new Metric({ name: 'm', type: 'gauge', help: 'm', labels: ['a', 'b'] });
  metric.derive((tell) => tell({ b: '2', a: '1' }, 3));
  assert.match(metric.expose(), /^m\{a="1",b="2"\} 3$/m);
});

test('the counters of a forgotten MeshCertificate are removed', () => {
  const metrics = createMetrics({ version: '1' });
  metrics.failures.inc({ ...key, code: 'ERR_MESH_UNREACHABLE' });
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
