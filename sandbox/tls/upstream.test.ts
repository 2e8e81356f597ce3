import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { request } from 'node:https';
import { test } from 'node:test';
import type { Identity } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { SandboxCa } from './ca.ts';
import { startUpstream, type UpstreamOptions } from './upstream.ts';

const HOUR = 3_600_000;
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const GATEWAY = 'spiffe://cluster.local/ns/emissary/sa/emissary';

interface CallOptions {
  readonly as?: Identity;
  readonly servername?: string;
  readonly alpn?: string[];
}

function call(port: number, { as, servername = '', alpn }: CallOptions): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({
      host: '127.0.0.1',
      port,
      servername,
      agent: false,
      rejectUnauthorized: false,
      ...(alpn ? { ALPNProtocols: alpn } : {}),
      ...(as ? { key: as.key.toPem(), cert: formatCertificates(as.chain) } : {}),
    });
    sent.on('error', reject).on('response', (response) => {
      let body = '';
      response
        .on('data', (part) => (body += part))
        .on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    sent.end();
  });
}

async function withUpstream(
  options: Partial<UpstreamOptions>,
  run: (ca: SandboxCa, upstream: Awaited<ReturnType<typeof startUpstream>>) => Promise<void>,
): Promise<void> {
  const ca = SandboxCa.root();
  const server = ca.identity({ uris: [WEB], lifetimeMs: HOUR });
  const upstream = await startUpstream({ identity: () => server, trust: () => [ca.certificate], ...options });
  try {
    await run(ca, upstream);
  } finally {
    await upstream.stop();
  }
}

test('a client of the mesh gets an answer with its own identity', () =>
  withUpstream({}, async (ca, upstream) => {
    const as = ca.identity({ uris: [GATEWAY], lifetimeMs: HOUR });
    const { status, body } = await call(upstream.port, { as });
    assert.equal(status, 200);
    assert.equal(JSON.parse(body).peer, GATEWAY);
    assert.deepEqual([...upstream.peers], [[as.chain[0]?.fingerprint, 1]]);
  }));

test('a client without a certificate, and one of another mesh, fail the handshake', () =>
  withUpstream({}, async (_, upstream) => {
    const stranger = SandboxCa.root({ name: 'other' }).identity({ uris: [GATEWAY], lifetimeMs: HOUR });
    await assert.rejects(call(upstream.port, {}));
    await assert.rejects(call(upstream.port, { as: stranger }));
    assert.equal(upstream.requests, 0);
    assert.equal(upstream.counts.handshakeFailures, 2);
  }));

test('an expired client certificate is refused', () =>
  withUpstream({}, async (ca, upstream) => {
    const now = Date.now();
    const as = ca.identity({ uris: [GATEWAY], notBefore: now - 2 * HOUR, notAfter: now - HOUR });
    await assert.rejects(call(upstream.port, { as }));
    assert.match(upstream.lastFailure ?? '', /CERT_HAS_EXPIRED/);
    assert.equal(upstream.counts.expired, 1);
  }));

test('a peer that is not on the list gets 403', () =>
  withUpstream({ allow: (peer) => peer === GATEWAY }, async (ca, upstream) => {
    const as = ca.identity({ uris: ['spiffe://cluster.local/ns/shop/sa/other'], lifetimeMs: HOUR });
    assert.equal((await call(upstream.port, { as })).status, 403);
    assert.equal(upstream.counts.refused, 1);
  }));

test('trust and identity are read again for each connection', async () => {
  const [one, two] = [SandboxCa.root({ name: 'one' }), SandboxCa.root({ name: 'two' })];
  let trust = [one.certificate];
  await withUpstream({ trust: () => trust }, async (_, upstream) => {
    const as = two.identity({ uris: [GATEWAY], lifetimeMs: HOUR });
    await assert.rejects(call(upstream.port, { as }));
    trust = [one.certificate, two.certificate];
    assert.equal((await call(upstream.port, { as })).status, 200);
  });
});

test('with a server name, any other is refused', () =>
  withUpstream({ sni: 'web.shop.serviceaccount' }, async (ca, upstream) => {
    const as = ca.identity({ uris: [GATEWAY], lifetimeMs: HOUR });
    assert.equal((await call(upstream.port, { as, servername: 'web.shop.serviceaccount' })).status, 200);
    await assert.rejects(call(upstream.port, { as, servername: 'elsewhere' }));
    await assert.rejects(call(upstream.port, { as }));
  }));

test('with application protocols, a client that offers none of them is refused', () =>
  withUpstream({ alpn: ['istio', 'istio-http/1.1'] }, async (ca, upstream) => {
    const as = ca.identity({ uris: [GATEWAY], lifetimeMs: HOUR });
    assert.equal((await call(upstream.port, { as, alpn: ['istio-http/1.1', 'istio', 'http/1.1'] })).status, 200);
    await assert.rejects(call(upstream.port, { as, alpn: ['http/1.1'] }));
  }));

test('plaintext is cut off, unless the upstream is permissive', async () => {
  const get = (port: number) =>
    new Promise<number>((resolve, reject) => {
      httpRequest({ host: '127.0.0.1', port, agent: false })
        .on('error', reject)
        .on('response', (response) => resolve(response.resume().statusCode ?? 0))
        .end();
    });
  await withUpstream({}, async (_, upstream) => {
    await assert.rejects(get(upstream.port));
    assert.equal(upstream.counts.plaintext, 1);
  });
  await withUpstream({ plaintext: true }, async (_, upstream) => {
    assert.equal(await get(upstream.port), 200);
    assert.equal(upstream.counts.plaintext, 1);
  });
});
