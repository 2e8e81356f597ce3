import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { worstOf } from '../gateway.ts';
import { diagnosticsRequests, type ExpectedFiles, expectedFiles, judgeAnswers } from './loading.ts';

const [NEW, OLD, CA] = ['A'.repeat(40), 'B'.repeat(40), 'C'.repeat(40)] as const;
const ca = SandboxCa.root();
const [leaf] = ca.identity({ uris: ['spiffe://cluster.local/ns/emissary/sa/emissary'], lifetimeMs: 3_600_000 }).chain;
assert.ok(leaf);
const expected: ExpectedFiles = {
  digest: `${NEW}.${CA}`,
  namespace: 'emissary',
  secretName: 'istio-identity',
  file: NEW,
  caSecretName: 'istio-ca',
  caFile: CA,
  chain: leaf.pem,
  trust: ca.root.pem,
};
const path = (secret: string, file: string, extension = 'crt', namespace = 'emissary') =>
  `/tmp/ambassador/snapshots/${namespace}/secrets-decoded/${secret}/${file}.${extension}`;

const secretInfo = (file: string, caFile: string = CA) => ({
  secret: 'istio-identity',
  cert_chain_file: path('istio-identity', file),
  private_key_file: path('istio-identity', file, 'key'),
  cacert_chain_file: path('istio-ca', caFile),
});

/** As Emissary answers: the files of the TLSContext, those of the cluster of a route, and a TCPMapping. */
const diagnostics = (
  file: string,
  { cluster = file, caFile = CA as string, name = 'web_shop_443', tcp = false } = {},
) => ({
  errors: [],
  tlscontexts: [{ name: 'istio', secret_info: secretInfo(file, caFile) }],
  cluster_info: {
    web: { envoy_name: 'web', stats_name: name, tls_context: { secret_info: secretInfo(cluster, caFile) } },
    plain: { envoy_name: 'plain', stats_name: 'plain_shop_80' },
  },
  groups: tcp
    ? { one: { kind: 'IRTCPMappingGroup', tls: 'istio', mappings: [{ cluster_service: 'db.shop:443' }] } }
    : {},
});

const seconds = (ms: number) => Math.floor(ms / 1000);
/** What Envoy says about one cluster. */
const gauges = (
  name: string,
  { end = seconds(leaf.notAfter), roots = seconds(ca.root.notAfter), warming = 0 } = {},
) => [
  `envoy_cluster_ssl_certificate_expiration_unix_time_seconds{envoy_tls_certificate="unnamed_ca_cert_e3b0c442",envoy_cluster_name="${name}"} ${roots}`,
  `envoy_cluster_ssl_certificate_expiration_unix_time_seconds{envoy_tls_certificate="unnamed_cert_e3b0c442",envoy_cluster_name="${name}"} ${end}`,
  `envoy_cluster_warming_state{envoy_cluster_name="${name}"} ${warming}`,
];

const certs = (file: string, ca = CA) => ({
  certificates: [
    {
      ca_cert: [{ path: path('istio-ca', ca), serial_number: '01' }],
      cert_chain: [{ path: path('istio-identity', file), serial_number: '02' }],
    },
  ],
});

const judge = (...answers: readonly unknown[]) => judgeAnswers(answers, expected);
const WEB = gauges('web_shop_443');

describe("the gateway's answer", () => {
  const none = { tlscontexts: [], cluster_info: {}, groups: {} };
  const unused = { ...diagnostics(NEW), cluster_info: {} };
  const cases = [
    ['is live with the file as it stands, and the certificate in Envoy', [diagnostics(NEW), WEB], 'live'],
    ['is only read without metrics', [diagnostics(NEW), undefined], 'read'],
    ['is only read when Envoy does not show its certificates', [diagnostics(NEW), []], 'read'],
    ['is only read when no route uses it', [unused, WEB], 'read'],
    ['is only read while a TCPMapping is not shown', [diagnostics(NEW, { tcp: true }), WEB], 'read'],
    [
      'is live with a TCPMapping that is shown',
      [diagnostics(NEW, { tcp: true }), [...WEB, ...gauges('db_shop_443')]],
      'live',
    ],
    ['is stale with another file', [diagnostics(OLD), WEB], 'stale'],
    ['is stale while a cluster from the cache has another', [diagnostics(NEW, { cluster: OLD }), WEB], 'stale'],
    ['is stale with an old trust bundle', [diagnostics(NEW, { caFile: OLD }), WEB], 'stale'],
    ['is stale with another certificate in Envoy', [diagnostics(NEW), gauges('web_shop_443', { end: 1 })], 'stale'],
    ['is stale with other roots in Envoy', [diagnostics(NEW), gauges('web_shop_443', { roots: 1 })], 'stale'],
    ['is stale while the cluster warms up', [diagnostics(NEW), gauges('web_shop_443', { warming: 1 })], 'stale'],
    [
      'is only read when a cluster with another certificate counts under the same name',
      [diagnostics(NEW, { name: 'plain_shop_80' }), gauges('plain_shop_80', { end: 1 })],
      'read',
    ],
    ['is absent without a context of ours', [none, WEB], 'absent'],
    ['is live by what Envoy has loaded', [certs(NEW)], 'live'],
    ['is stale by what Envoy has loaded', [certs(OLD)], 'stale'],
    ['is stale with the new pair and an old trust bundle', [certs(NEW, OLD)], 'stale'],
    ['is unknown without diagnostics', [undefined, WEB], undefined],
  ] as const;
  for (const [sentence, answers, arrival] of cases) {
    it(sentence, () => assert.equal(judge(...answers)?.arrival, arrival));
  }

  it('is not about a Secret of the same name in another namespace', () => {
    const elsewhere = { tlscontexts: [{ file: path('istio-identity', OLD, 'crt', 'other') }] };
    assert.equal(judge(elsewhere)?.arrival, 'absent');
  });

  it('is refused when it is neither of the two', () => {
    assert.throws(() => judge({ error: 'not found' }), /neither tlscontexts nor certificates/);
  });

  it('counts by the place with the worst state, and by Envoy where Emissary has only read', () => {
    const worst = (...answers: readonly unknown[]) => worstOf(answers.flatMap((answer) => judge(answer) ?? []));
    const both = [worst(diagnostics(NEW), certs(OLD)), worst(diagnostics(NEW), certs(NEW))];
    assert.deepEqual(
      both.map((one) => [one?.arrival, one?.certain]),
      [
        ['stale', true],
        ['live', true],
      ],
    );
    assert.equal(worst(), undefined);
  });
});

describe('the expected files', () => {
  it('are none without the two Secrets', () => {
    const context = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext', metadata: { name: 'istio' } };
    assert.equal(expectedFiles({ secretName: 'a', caSecretName: 'b' }, [{ object: context }]), undefined);
  });
});

describe('a URL of the gateway', () => {
  const cases = [
    ['http://pod:8877', ['http://pod:8877/ambassador/v0/diag/?json=true', 'http://pod:8877/metrics']],
    ['http://127.0.0.1:8001', ['http://127.0.0.1:8001/certs']],
    ['http://127.0.0.1:9901/certs', ['http://127.0.0.1:9901/certs']],
  ] as const;
  for (const [given, meant] of cases)
    it(`${given} means ${meant.join(' and ')}`, () =>
      assert.deepEqual(
        diagnosticsRequests(given).map(({ url }) => url.href),
        meant,
      ));
});
