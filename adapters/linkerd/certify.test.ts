import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type RunningServer, serve } from '../../sandbox/grpc/server.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { readCsr } from '../../sandbox/tls/csr.ts';
import { isIssuer } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { linkerdHost } from '../../test/contract/adapter-linkerd-host.ts';
import { linkerd } from './adapter.ts';

const ID = 'emissary.emissary.serviceaccount.identity.linkerd.cluster.local';
const HOUR = 3_600_000;

/** An identity service that gives scripted answers. */
describe('an answer of the identity service', () => {
  const root = SandboxCa.root();
  const issuer = root.intermediate();
  const own = issuer.identity({ dns: ['linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local'] });
  let server: RunningServer;
  let answer: (csr: Buffer) => object;
  before(async () => {
    server = await serve({
      listen: { port: 0 },
      tls: { cert: own.chain.map(({ pem }) => pem).join(''), key: own.key.toPem() },
      services: {
        'io.linkerd.proxy.identity.Identity': {
          Certify: {
            unary: (request: { certificate_signing_request: Buffer }) => answer(request.certificate_signing_request),
          },
        },
      },
    });
  });
  after(() => server.stop());

  const leafFor = (csr: Buffer, options: Parameters<SandboxCa['issue']>[1] = {}): Certificate =>
    issuer.issue(readCsr(csr).publicKey, { dns: [ID], ...options });
  const answerOf = (leaf: Certificate, changes: object = {}) => ({
    leaf_certificate: leaf.der,
    intermediate_certificates: [issuer.certificate.der],
    valid_until: { seconds: Math.floor(leaf.notAfter / 1000), nanos: 0 },
    ...changes,
  });

  async function issue() {
    const host = linkerdHost();
    host.setConfigMap(
      { name: 'linkerd-identity-trust-roots', namespace: 'linkerd' },
      { 'ca-bundle.crt': root.certificate.pem },
    );
    const config = linkerd.config.parse({
      serviceAccount: { name: 'emissary' },
      trustDomain: 'cluster.local',
      address: server.address,
    });
    const opened = linkerd.open(config, host);
    assert.ok(isIssuer(opened));
    return opened.issue(new AbortController().signal);
  }

  it('is accepted when it is complete', async () => {
    answer = (csr) => answerOf(leafFor(csr));
    assert.equal((await issue()).id, ID);
  });

  const wrong: [title: string, answer: (csr: Buffer) => object, message: RegExp][] = [
    [
      'without a leaf',
      (csr) => answerOf(leafFor(csr), { leaf_certificate: Buffer.alloc(0) }),
      /without a leaf certificate/,
    ],
    ['without valid_until', (csr) => answerOf(leafFor(csr), { valid_until: null }), /without valid_until/],
    [
      'with an intermediate that is no certificate',
      (csr) => answerOf(leafFor(csr), { intermediate_certificates: [Buffer.from('junk')] }),
      /certificate \(number 2\) that cannot be read/,
    ],
    [
      'in PEM, as the comments of the protocol have it',
      (csr) => answerOf(leafFor(csr), { leaf_certificate: Buffer.from(leafFor(csr).pem) }),
      /certificate \(number 1\) that cannot be read/,
    ],
    ['for another key', () => answerOf(issuer.issue(PrivateKey.generate(), { dns: [ID] })), /is for another key/],
    ['for another name', (csr) => answerOf(leafFor(csr, { dns: ['b.example'] })), /names b\.example instead/],
    ['for nobody', (csr) => answerOf(leafFor(csr, { dns: [] })), /names no DNS name instead/],
    [
      'that has ended',
      (csr) => answerOf(leafFor(csr, { notBefore: Date.now() - HOUR, notAfter: Date.now() - 1000 })),
      /ended at .*correct the clock, or renew Linkerd's issuer/,
    ],
  ];
  for (const [title, made, message] of wrong) {
    it(`${title} is refused and dropped`, async () => {
      answer = made;
      const error = await issue().catch((reason: unknown) => reason);
      assert.ok(error instanceof MeshError, String(error));
      assert.equal(error.code, 'ERR_MESH_BAD_RESPONSE');
      assert.match(error.message, message);
    });
  }
});
