import assert from 'node:assert/strict';
import { test } from 'node:test';
import { istio } from './adapter.ts';
import { istioConfig } from './config.ts';

const host = { namespace: 'emissary' };
const parse = (input: unknown) => istioConfig.parse(input);
const complaint = (input: unknown) =>
  istioConfig
    .safeParse(input)
    .error?.issues.map((issue) => issue.message)
    .join();

test('a ServiceAccount is all that the CA mode needs', () => {
  const { ca } = parse({ ca: { serviceAccount: 'emissary' } });
  assert.deepEqual(ca, {
    address: 'istiod.istio-system.svc:15012',
    serviceAccount: 'emissary',
    audience: 'istio-ca',
    clusterId: 'Kubernetes',
    root: {},
    includeCaRoots: true,
  });
});

test('an empty sds is the default socket of a sidecar', () => {
  assert.equal(parse({ sds: {} }).sds?.socket, '/var/run/secrets/workload-spiffe-uds/socket');
});

test('exactly one way to connect and one token are configured', () => {
  assert.match(complaint({}) ?? '', /exactly one of ca and sds/);
  assert.match(complaint({ ca: { serviceAccount: 'a' }, sds: {} }) ?? '', /exactly one of ca and sds/);
  assert.match(complaint({ ca: {} }) ?? '', /exactly one of serviceAccount and tokenFile/);
  assert.match(complaint({ ca: { serviceAccount: 'a', tokenFile: '/t' } }) ?? '', /exactly one of serviceAccount/);
  const root = { inline: 'x', file: '/x' };
  assert.match(
    complaint({ ca: { serviceAccount: 'a', root } }) ?? '',
    /at most one of configMap, clusterTrustBundle, file and inline/,
  );
});

test('addresses, paths, ids and durations are validated in the configuration', () => {
  assert.match(complaint({ ca: { serviceAccount: 'a', address: 'istiod' } }) ?? '', /expected host:port/);
  assert.match(complaint({ sds: { socket: 'relative' } }) ?? '', /absolute path/);
  assert.match(complaint({ sds: { socket: `/${'x'.repeat(107)}` } }) ?? '', /at most 107 characters/);
  assert.match(complaint({ sds: {}, id: 'spiffe://UPPER/x' }) ?? '', /expected a SPIFFE ID/);
  assert.match(complaint({ ca: { serviceAccount: 'a', ttl: '10s' } }) ?? '', /at least 1m/);
});

test('the requirements for the leaf follow from the configuration', () => {
  const expect = (input: unknown) => istio.expect(parse(input), host);
  assert.deepEqual(expect({ ca: { serviceAccount: 'web' } }), {
    form: 'spiffe',
    id: 'spiffe://cluster.local/ns/emissary/sa/web',
    trustDomain: 'cluster.local',
  });
  assert.deepEqual(expect({ ca: { tokenFile: '/t' }, trustDomain: 'td' }), { form: 'spiffe', trustDomain: 'td' });
  assert.deepEqual(expect({ sds: {} }), { form: 'spiffe' });
  assert.deepEqual(expect({ sds: {}, id: 'spiffe://td/x' }), {
    form: 'spiffe',
    id: 'spiffe://td/x',
    trustDomain: 'td',
  });
});
