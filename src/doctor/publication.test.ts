import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lookAtStatus } from './looks.ts';

const cause = 'CA istiod at istiod:15012: UNAVAILABLE (connect ECONNREFUSED 10.0.0.1:15012); check address';
const failing = `ERR_MESH_UNREACHABLE: ${cause}`;
const expired = {
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  metadata: { name: 'istio', namespace: 'emissary' },
  spec: {},
  status: {
    notAfter: '2026-01-02T00:00:00Z',
    lastError: {
      code: 'ERR_MESH_UNREACHABLE',
      message: cause,
      firstTime: '2026-01-01T15:00:00Z',
      time: '2026-01-02T01:00:10Z',
    },
    nextAttemptTime: '2026-01-02T01:00:28Z',
    conditions: [
      {
        type: 'Ready',
        status: 'False',
        reason: 'Expired',
        message: `The certificate expired at 2026-01-02T00:00:00Z, and no newer one came. Since 2026-01-01T15:00:00Z: ${failing}`,
      },
      { type: 'Published', status: 'False', reason: 'MeshUnreachable', message: failing },
      { type: 'Degraded', status: 'True', reason: 'MeshUnreachable', message: failing },
    ],
  },
};

test('an expired certificate is reported with its cause, since when, and the last and the next attempt', () => {
  const { state, message } = lookAtStatus(expired);
  assert.equal(state, 'failed');
  assert.match(message, /^Ready Expired: The certificate expired at 2026-01-02T00:00:00Z, and no newer one came\. /);
  assert.ok(
    message.endsWith(
      'failing since 2026-01-01T15:00:00Z, last attempt at 2026-01-02T01:00:10Z, next attempt at 2026-01-02T01:00:28Z',
    ),
    message,
  );
  assert.equal(message.split(cause).length, 2, 'the cause is in it once');
});

test('the status of an older agent, without first time and next attempt, is reported as far as it goes', () => {
  const { firstTime: _, ...lastError } = expired.status.lastError;
  const { nextAttemptTime: __, ...status } = expired.status;
  const { message } = lookAtStatus({ ...expired, status: { ...status, lastError } });
  assert.ok(message.endsWith('failing since 2026-01-02T01:00:10Z, last attempt at 2026-01-02T01:00:10Z'), message);
});

test('an upstream with another identity is reported, and one that could not be checked is not', () => {
  const ready = { type: 'Ready', status: 'True', reason: 'Serving', message: 'served' };
  const upstream = (status: string) => {
    const message = 'ERR_PROBE_UPSTREAM_ID: web.shop:443 presents another identity';
    const conditions = [ready, { type: 'UpstreamVerified', status, reason: 'ProbeUpstreamId', message }];
    return lookAtStatus({ ...expired, status: { conditions } });
  };
  assert.deepEqual([upstream('True').state, upstream('Unknown').state], ['passed', 'passed']);
  const { state, severity, message } = upstream('False');
  assert.deepEqual([state, severity], ['failed', 'warning']);
  assert.match(message, /UpstreamVerified ProbeUpstreamId: .* web\.shop:443 presents another identity/);
});

test('a condition that says that an issuer is current is no trouble', () => {
  const conditions = [
    { type: 'Ready', status: 'True', reason: 'Serving', message: 'served' },
    { type: 'IssuerEnding', status: 'False', reason: 'IssuerCurrent', message: 'No CA certificate is near its end.' },
  ];
  const { state, message } = lookAtStatus({ ...expired, status: { notAfter: '2026-01-02T00:00:00Z', conditions } });
  assert.equal(state, 'passed', message);
  const ends = conditions.map((one) => (one.type === 'IssuerEnding' ? { ...one, status: 'True' } : one));
  assert.equal(lookAtStatus({ ...expired, status: { conditions: ends } }).state, 'failed');
});
