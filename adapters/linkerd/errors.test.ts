import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serve } from '../../sandbox/grpc/server.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { sharing } from '../../src/async/sharing.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { certifyError } from './errors.ts';
import { certify } from './issuer.ts';

const NOW = Date.parse('2026-01-01T00:00:00Z');
const SUB = 'system:serviceaccount:emissary:gateway';
const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const jwt = (claims: object) => `${encoded({ alg: 'RS256' })}.${encoded({ sub: SUB, ...claims })}.c2ln`;

function reported(status: number, details: string, token = jwt({ aud: ['identity.l5d.io'], exp: NOW / 1000 + 600 })) {
  const call = { address: 'identity:8080', serverName: 'linkerd-identity', token, now: NOW };
  const error = certifyError(new GrpcError(status, details), call);
  assert.ok(error instanceof MeshError);
  return error;
}

const review = 'TokenReview failed';

test('a token for another audience is reported with its audience and with the missing one', () => {
  const { code, message } = reported(
    grpcStatus.INVALID_ARGUMENT,
    review,
    jwt({ aud: ['https://kubernetes.default.svc'], exp: NOW / 1000 + 600 }),
  );
  assert.equal(code, 'ERR_MESH_TOKEN');
  assert.match(message, /audience https:\/\/kubernetes\.default\.svc, .*lacks audience identity\.l5d\.io; project/);
  assert.doesNotMatch(message, /next attempt/);
});

test('an expired token is reported with its expiry', () => {
  const { message } = reported(
    grpcStatus.INVALID_ARGUMENT,
    review,
    jwt({ aud: ['identity.l5d.io'], exp: NOW / 1000 - 60 }),
  );
  assert.match(message, /valid until 2025-12-31T23:59:00\.000Z, has expired/);
});

test('a text that is not a token, and a valid one that is refused, have specific advice', () => {
  assert.match(
    reported(grpcStatus.INVALID_ARGUMENT, review, 'opaque').message,
    /which is not a JWT, .*mount a projected/,
  );
  assert.match(reported(grpcStatus.INVALID_ARGUMENT, review).message, /looks right; is it from this cluster/);
});

test('an expired issuer is reported as such, by the service and through its expired proxy', () => {
  const byService = reported(grpcStatus.UNKNOWN, 'x509: certificate has expired or is not yet valid');
  assert.match(byService.message, /its issuer certificate has expired; .*renew the issuer/);
  const throughProxy = reported(
    grpcStatus.UNAVAILABLE,
    'No connection established. Last error: Error: certificate has expired. Resolution note: \n',
  );
  assert.equal(throughProxy.code, 'ERR_MESH_TLS');
  assert.match(throughProxy.message, /its proxy presents an expired certificate, .*renew the issuer/);
  assert.doesNotMatch(throughProxy.message, /controlPlaneNamespace|inject/);
});

test("the expired proxy is recognised by OpenSSL's message about its certificate", async () => {
  const ca = SandboxCa.root();
  const now = Date.now();
  const expired = ca.identity({ dns: ['localhost'], notBefore: now - 120_000, notAfter: now - 60_000 });
  const server = await serve({
    services: {},
    listen: { port: 0, host: '127.0.0.1' },
    tls: { cert: expired.chain.map(({ pem }) => pem).join(''), key: expired.key.toPem() },
  });
  try {
    const service = { address: `127.0.0.1:${server.port}`, serverName: 'localhost', roots: [ca.root] };
    const request = { identity: 'a', token: 'a.b.c', csr: Buffer.alloc(1) };
    const signal = new AbortController().signal;
    await assert.rejects(
      certify(service, request, { now: Date.now, share: sharing() }, signal),
      (error: MeshError) => error.code === 'ERR_MESH_TLS' && /its proxy presents an expired/.test(error.message),
    );
  } finally {
    await server.stop();
  }
});

test('a failed connection is one line without the notes of the library', () => {
  const { message } = reported(
    grpcStatus.UNAVAILABLE,
    'No connection established. Last error: connect ECONNREFUSED 10.0.0.7:8080 (2026-01-01T00:00:00.000Z). Resolution note: ',
  );
  assert.match(message, /UNAVAILABLE \(connect ECONNREFUSED 10\.0\.0\.7:8080\); no connection; check address/);
  assert.doesNotMatch(message, /Resolution note|\n/);
});
