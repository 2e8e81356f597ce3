import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { worstOf } from '../../loading.ts';
import { diagnosticsUrl, type ExpectedFiles, expectedFiles, judgeAnswer } from './answer.ts';

const [NEW, OLD, CA] = ['A'.repeat(40), 'B'.repeat(40), 'C'.repeat(40)] as const;
const expected: ExpectedFiles = {
  digest: `${NEW}.${CA}`,
  namespace: 'emissary',
  secretName: 'istio-identity',
  file: NEW,
  caSecretName: 'istio-ca',
  caFile: CA,
};
const path = (secret: string, file: string, extension = 'crt', namespace = 'emissary') =>
  `/tmp/ambassador/snapshots/${namespace}/secrets-decoded/${secret}/${file}.${extension}`;

const diagnostics = (...files: readonly string[]) => ({
  errors: [],
  tlscontexts: files.map((file) => ({
    name: 'istio',
    secret_info: {
      secret: 'istio-identity',
      cert_chain_file: path('istio-identity', file),
      private_key_file: path('istio-identity', file, 'key'),
      cacert_chain_file: path('istio-ca', CA),
    },
  })),
});

const certs = (file: string, ca = CA) => ({
  certificates: [
    {
      ca_cert: [{ path: path('istio-ca', ca), serial_number: '01' }],
      cert_chain: [{ path: path('istio-identity', file), serial_number: '02' }],
    },
  ],
});

describe("the gateway's answer", () => {
  const cases = [
    ['is live with the file as it stands', diagnostics(NEW), 'live'],
    ['is stale with another', diagnostics(OLD), 'stale'],
    ['is stale while one of several contexts has another', diagnostics(NEW, OLD), 'stale'],
    ['is absent without a context of ours', diagnostics(), 'absent'],
    ['is live by what Envoy has loaded', certs(NEW), 'live'],
    ['is stale by what Envoy has loaded', certs(OLD), 'stale'],
    ['is stale with the new pair and an old trust bundle', certs(NEW, OLD), 'stale'],
  ] as const;
  for (const [sentence, answer, arrival] of cases) {
    it(sentence, () => assert.equal(judgeAnswer(answer, expected).arrival, arrival));
  }

  it('is not about a Secret of the same name in another namespace', () => {
    const elsewhere = { tlscontexts: [{ file: path('istio-identity', OLD, 'crt', 'other') }] };
    assert.equal(judgeAnswer(elsewhere, expected).arrival, 'absent');
  });

  it('is refused when it is neither of the two', () => {
    assert.throws(() => judgeAnswer({ error: 'not found' }, expected), /neither tlscontexts nor certificates/);
  });

  it('counts by the place with the worst state, and by Envoy where both agree', () => {
    const judged = [judgeAnswer(diagnostics(NEW), expected), judgeAnswer(certs(OLD), expected)];
    assert.deepEqual([worstOf(judged)?.arrival, worstOf(judged)?.certain], ['stale', true]);
    const both = [judgeAnswer(diagnostics(NEW), expected), judgeAnswer(certs(NEW), expected)];
    assert.deepEqual([worstOf(both)?.arrival, worstOf(both)?.certain], ['live', true]);
    assert.equal(worstOf([]), undefined);
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
    ['http://pod:8877', 'http://pod:8877/ambassador/v0/diag/?json=true'],
    ['http://127.0.0.1:8001', 'http://127.0.0.1:8001/certs'],
    ['http://127.0.0.1:9901/certs', 'http://127.0.0.1:9901/certs'],
  ] as const;
  for (const [given, meant] of cases)
    it(`${given} means ${meant}`, () => assert.equal(diagnosticsUrl(given).href, meant));
});
