import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { type LeafOptions, SandboxCa } from '../../sandbox/tls/ca.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { gateways } from '../../src/gateways.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { onlyOpensslRefuses } from '../support/only-openssl.ts';
import { type DoctorReport, doctorReport, runDoctor } from './run-doctor.ts';

const NAMESPACE = 'emissary';
const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';

const base64 = (text: string) => Buffer.from(text).toString('base64');
const pemOf = (certificates: readonly Certificate[]) => certificates.map(({ pem }) => pem).join('');
const secret = (name: string, type: string, data: Readonly<Record<string, string>>) => ({
  apiVersion: 'v1',
  kind: 'Secret',
  type,
  metadata: { name, namespace: NAMESPACE },
  data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, base64(text)])),
});

describe('doctor on a published pair', () => {
  const root = SandboxCa.root();
  let api: KubeApi;

  /** Like the agent, which never writes a bad pair. */
  const publish = (leaf: LeafOptions) => {
    const key = PrivateKey.generate();
    const chain = [root.issue(key, { uris: [ID], ...leaf })];
    api.put(secret('istio-identity', 'kubernetes.io/tls', { 'tls.crt': pemOf(chain), 'tls.key': key.toPem() }));
    api.put(secret('istio-ca', 'Opaque', { 'tls.crt': pemOf([root.certificate]) }));
  };
  const verdicts = ({ checked }: DoctorReport) =>
    checked.filter(({ code }) => code === 'MC6012').map(({ state, message }) => `${state} ${message}`);

  before(async () => {
    api = await startKubeApi({ namespaces: [NAMESPACE] });
    api.put(customResourceDefinition(adapters, gateways));
    api.put({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'istio', namespace: NAMESPACE },
      spec: { istio: { ca: { address: '127.0.0.1:1', serviceAccount: 'emissary' } } },
    });
  });
  after(() => api?.stop());

  const report = () => doctorReport(api.kubeconfig(), '--no-issue', '--agent', 'none', '--timeout', '2s');

  it('has nothing to judge before the first publication', async () => {
    assert.match(verdicts(await report()).join(), /^skipped .*could not be read$/);
  });

  it('shows that both judges accept it', async () => {
    publish({});
    const [ours, openssl, ...more] = verdicts(await report());
    assert.match(ours ?? '', /^passed .*the checks of meshcert accept the pair in Secret emissary\/istio-identity/);
    assert.match(openssl ?? '', /^passed .*OpenSSL accepts in a handshake the pair in Secret emissary\/istio-identity/);
    assert.deepEqual(more, []);
  });

  it('shows that only OpenSSL refuses it', async () => {
    publish({ more: [onlyOpensslRefuses()] });
    const found = await report();
    const [ours, openssl] = verdicts(found);
    assert.match(ours ?? '', /^passed /);
    assert.match(openssl ?? '', /^failed .*ERR_VERIFY_PREFLIGHT: OpenSSL refuses the pair .*bundle: \w+/);
    const [finding, ...more] = found.findings.filter(({ code }) => code === 'MC6012');
    assert.equal(finding?.severity, 'error');
    assert.deepEqual(more, []);
    const { text } = await runDoctor(api.kubeconfig(), '--no-issue', '--agent', 'none', '--timeout', '2s');
    assert.match(text, /^ {2}ok {4}MeshCertificate emissary\/istio: the checks of meshcert accept the pair/m);
    assert.match(text, /^ {2}FAIL {2}MC6012 .*OpenSSL refuses in a handshake the pair/m);
  });

  it('judges the name that the configuration expects', async () => {
    publish({ uris: ['spiffe://elsewhere/ns/emissary/sa/emissary'], eku: [] });
    api.put({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'istio', namespace: NAMESPACE },
      spec: {
        istio: { ca: { address: '127.0.0.1:1', serviceAccount: 'emissary' }, trustDomain: 'cluster.local' },
      },
    });
    const [ours, openssl] = verdicts(await report());
    assert.match(ours ?? '', /^failed .*ERR_VERIFY_(ID|TRUST_DOMAIN)/);
    assert.match(openssl ?? '', /^passed /);
  });
});
