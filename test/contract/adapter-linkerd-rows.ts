import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { type Channel, openChannel } from '../../src/grpc/channel.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import { type CsrNames, createCsr } from '../../src/pki/csr.ts';
import { PrivateKey } from '../../src/pki/key.ts';

/** An identity service of Linkerd and the cluster that reviews its tokens. Its accounts already exist. */
export interface IdentityTarget {
  readonly name: string;
  /** Plaintext h2c. */
  readonly address: string;
  /** Its proxy. */
  readonly tlsAddress: string;
  readonly serverName: string;
  /** PEM. */
  readonly roots: string;
  identity(namespace: string, account: string): string;
  token(account: { readonly name: string; readonly namespace: string }, audience: string): Promise<string>;
  /** Token of a user that is not a ServiceAccount. */
  readonly userToken: string;
  replaceIssuer(): Promise<void> | void;
  stop(): Promise<void>;
}

/** Must exist beforehand: the gateway, another one, and one with a dot in its name. */
export const ACCOUNTS = [
  { name: 'emissary', namespace: 'emissary' },
  { name: 'other', namespace: 'emissary' },
  { name: 'edge.stack', namespace: 'emissary' },
] as const;

interface CertifyResponse {
  readonly leaf_certificate: Buffer;
  readonly intermediate_certificates: readonly Buffer[];
  readonly valid_until: { readonly seconds: string } | null;
}

const AUDIENCE = 'identity.l5d.io';
const METHOD = 'io.linkerd.proxy.identity.Identity/Certify';
const CHART_SKEW_MS = 20_000;

/** The rows of facts about Certify, the same for the sandbox and for a service on Linkerd's own types. */
export function certifyRows(title: string, start: () => Promise<IdentityTarget>): void {
  describe(`Certify of ${title}`, () => {
    let target: IdentityTarget;
    let channel: Channel;
    let id: string;
    const key = PrivateKey.generate();
    const [emissary, other, dotted] = ACCOUNTS;

    before(async () => {
      target = await start();
      channel = openChannel({ address: target.address, tls: 'plaintext' });
      id = target.identity('emissary', 'emissary');
    });
    after(async () => {
      channel?.close();
      await target?.stop();
    });

    const certify = async (changes: { identity?: string; token?: string | Buffer; csr?: Buffer } = {}) => {
      const token = changes.token ?? (await target.token(emissary, AUDIENCE));
      return channel.unary<CertifyResponse>(
        {
          identity: changes.identity ?? id,
          token: Buffer.from(token),
          certificate_signing_request: changes.csr ?? createCsr(key, { dns: [id] }),
        },
        { method: METHOD, deadlineMs: 20_000 },
      );
    };
    const refusedWith = (code: number) => (error: unknown) => {
      assert.ok(error instanceof GrpcError, String(error));
      assert.equal(error.statusName, grpcStatus[code], error.message);
      return true;
    };
    const withNames = (names: CsrNames) => createCsr(key, names);

    it('gives a leaf for the one DNS name with an empty subject, and the issuer below a root', async () => {
      const asked = Date.now();
      const { leaf_certificate, intermediate_certificates, valid_until } = await certify();
      const answered = Date.now();
      const leaf = Certificate.fromDer(leaf_certificate);
      assert.deepEqual(leaf.names, { uris: [], dns: [id], ips: [], emails: [] });
      assert.equal(leaf.subject, '');
      assert.equal(leaf.publicKeyFingerprint, key.publicKeyFingerprint);
      assert.equal(leaf.isCa, false);
      assert.equal(leaf.subjectKeyId, undefined);
      assert.deepEqual([...leaf.extendedKeyUsage].sort(), ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
      assert.equal(Number(valid_until?.seconds) * 1000, leaf.notAfter);
      // Certificates have whole seconds, and the server has a clock of its own.
      assert.ok(leaf.notBefore > asked - CHART_SKEW_MS - 2000, `${asked - leaf.notBefore} ms before the request`);
      assert.ok(leaf.notBefore < answered - CHART_SKEW_MS + 2000, `${answered - leaf.notBefore} ms before the answer`);
      assert.equal(intermediate_certificates.length, 1);
      const above = intermediate_certificates.map((der) => Certificate.fromDer(der));
      const wanted = leaf.notBefore + 24 * 3_600_000 + 2 * CHART_SKEW_MS;
      assert.equal(leaf.notAfter, Math.min(wanted, ...above.map((issuer) => issuer.notAfter)));
      assert.ok(findPath(leaf, above, parseCertificates(target.roots), Date.now()).ok);
    });

    it('gives one with the common name too, when that is the identity', async () => {
      const csr = await externalCsr({ commonName: 'short' });
      await assert.rejects(certify({ csr }), refusedWith(grpcStatus.FAILED_PRECONDITION));
      const short = target.identity('emissary', 'emissary');
      if (short.length <= 64) assert.ok(await certify({ csr: withNames({ dns: [id], commonName: id }) }));
    });

    it('accepts a token of the API server’s audience as well', async () => {
      const token = await target.token(emissary, 'https://kubernetes.default.svc.cluster.local');
      assert.ok(await certify({ token }));
    });

    it('repeats its serial numbers after an issuer was loaded', async () => {
      const serials: string[] = [];
      for (let round = 0; round < 2; round++) {
        await target.replaceIssuer();
        serials.push(Certificate.fromDer((await certify()).leaf_certificate).serial);
      }
      assert.equal(serials[0], serials[1]);
    });

    it('answers over TLS 1.3 by its identity, without a client certificate', async () => {
      const tls = { ca: target.roots, serverName: target.serverName, minVersion: 'TLSv1.3' } as const;
      const secured = openChannel({ address: target.tlsAddress, tls });
      try {
        await assert.rejects(
          secured.unary({ identity: '' }, { method: METHOD, deadlineMs: 20_000 }),
          refusedWith(grpcStatus.INVALID_ARGUMENT),
        );
      } finally {
        secured.close();
      }
    });

    describe('is INVALID_ARGUMENT', () => {
      const invalid = refusedWith(grpcStatus.INVALID_ARGUMENT);
      it('without identity', () => assert.rejects(certify({ identity: '' }), invalid));
      it('without token', () => assert.rejects(certify({ token: '' }), invalid));
      it('without request', () => assert.rejects(certify({ csr: Buffer.alloc(0) }), invalid));
      it('for a request that is not PKCS#10', () => assert.rejects(certify({ csr: Buffer.from('junk') }), invalid));
      it('for a request signed by another key', () => {
        const csr = withNames({ dns: [id] });
        const last = csr.length - 1;
        csr[last] = (csr[last] ?? 0) ^ 1;
        return assert.rejects(certify({ csr }), invalid);
      });
      it('for a text that is not a token', () => assert.rejects(certify({ token: 'a.b.c' }), invalid));
      it('for the token of a user', () => assert.rejects(certify({ token: target.userToken }), invalid));
      it('for an account with a dot in its name', async () => {
        const token = await target.token(dotted, AUDIENCE);
        await assert.rejects(certify({ token }), invalid);
      });
    });

    describe('is FAILED_PRECONDITION', () => {
      const refused = refusedWith(grpcStatus.FAILED_PRECONDITION);
      it('for a request without a DNS name', () =>
        assert.rejects(certify({ csr: withNames({ commonName: 'x' }) }), refused));
      it('for a request with two', () =>
        assert.rejects(certify({ csr: withNames({ dns: [id, 'b.example'] }) }), refused));
      it('for a request with another', () =>
        assert.rejects(certify({ csr: withNames({ dns: ['b.example'] }) }), refused));
      it('for a request with a URI beside it', () =>
        assert.rejects(certify({ csr: withNames({ dns: [id], uris: ['spiffe://a/b'] }) }), refused));
      it('for a request with an address beside it', async () =>
        assert.rejects(certify({ csr: await externalCsr({ ip: '10.0.0.1' }) }), refused));
      it('for a request with an e-mail beside it', async () =>
        assert.rejects(certify({ csr: await externalCsr({ email: 'a@b.example' }) }), refused));
      it('for the token of another account', async () => {
        const token = await target.token(other, AUDIENCE);
        await assert.rejects(certify({ token }), refused);
      });
    });

    it('is INTERNAL for a key that is not ECDSA', async () => {
      const rsa = PrivateKey.fromKeyObject(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey);
      await assert.rejects(certify({ csr: createCsr(rsa, { dns: [id] }) }), refusedWith(grpcStatus.INTERNAL));
    });

    /** What our own encoder does not make: requests with other names, by an independent one. */
    async function externalCsr(more: { commonName?: string; ip?: string; email?: string }): Promise<Buffer> {
      await import('reflect-metadata');
      const x509 = await import('@peculiar/x509');
      const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify']);
      const names = [
        { type: 'dns' as const, value: id },
        ...(more.ip ? [{ type: 'ip' as const, value: more.ip }] : []),
        ...(more.email ? [{ type: 'email' as const, value: more.email }] : []),
      ];
      const request = await x509.Pkcs10CertificateRequestGenerator.create({
        name: more.commonName ? `CN=${more.commonName}` : '',
        keys,
        signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
        extensions: [new x509.SubjectAlternativeNameExtension(names)],
      });
      return Buffer.from(request.rawData);
    }
  });
}
