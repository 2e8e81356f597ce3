import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { systemClock } from '../mesh/clock.ts';
import { SandboxCa } from '../sandbox/ca.ts';
import { probe } from './probe.ts';

const ca = SandboxCa.root();
const stranger = SandboxCa.root();
const client = ca.identity({ uris: ['spiffe://td/ns/emissary/sa/emissary'], lifetimeMs: 60_000 });
const server = ca.identity({ uris: ['spiffe://td/ns/shop/sa/web'], lifetimeMs: 60_000 });
const cleanups: (() => void)[] = [];
after(() => {
  for (const clean of cleanups) clean();
});

describe('probe', () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`is accepted by an upstream that trusts our root, over ${version}`, async () => {
      const address = await upstream({ minVersion: version, maxVersion: version });
      const result = await probe({ address, id: 'spiffe://td/ns/shop/sa/web' }, client, [ca.root], {
        clock: systemClock,
      });
      assert.equal(result.code, 'accepted');
      assert.deepEqual(result.peer, ['spiffe://td/ns/shop/sa/web']);
      assert.equal(result.tlsVersion, version);
    });

    it(`sees that an upstream refuses our certificate, over ${version}`, async () => {
      const address = await upstream({ minVersion: version, maxVersion: version, ca: stranger.certificate.pem });
      const result = await probe({ address }, client, [ca.root], { clock: systemClock });
      assert.equal(result.code, 'ERR_PROBE_REFUSED');
    });
  }

  it('tells an upstream that does not verify under the bundle', async () => {
    const address = await upstream({});
    const result = await probe({ address }, client, [stranger.root], { clock: systemClock });
    assert.equal(result.code, 'ERR_PROBE_UPSTREAM_UNTRUSTED');
  });

  it('tells an upstream of another identity', async () => {
    const address = await upstream({});
    const result = await probe({ address, id: 'spiffe://td/ns/shop/sa/other' }, client, [ca.root], {
      clock: systemClock,
    });
    assert.equal(result.code, 'ERR_PROBE_UPSTREAM_ID');
    assert.match(result.message, /presents spiffe:\/\/td\/ns\/shop\/sa\/web, not/);
  });

  it('asks over HTTP where that is wished and tells the status', async () => {
    const address = await upstream({}, (socket) => socket.end('HTTP/1.1 204 No Content\r\n\r\n'));
    const result = await probe({ address, http: { path: '/healthz' } }, client, [ca.root], { clock: systemClock });
    assert.deepEqual([result.code, result.httpStatus], ['accepted', 204]);
  });

  it('tells an upstream that hangs up instead of answering', async () => {
    const address = await upstream({}, (socket) => socket.end());
    const result = await probe({ address, http: { path: '/' } }, client, [ca.root], { clock: systemClock });
    assert.equal(result.code, 'ERR_PROBE_REFUSED');
  });

  it('tells an address where nobody listens', async () => {
    const address = await upstream({});
    for (const clean of cleanups.splice(-1)) clean();
    const result = await probe({ address }, client, [ca.root], { clock: systemClock });
    assert.equal(result.code, 'ERR_PROBE_UNREACHABLE');
    assert.match(result.message, /ECONNREFUSED/);
  });

  it('never names key material in what it tells', async () => {
    const address = await upstream({ ca: stranger.certificate.pem });
    const text = JSON.stringify(await probe({ address }, client, [ca.root], { clock: systemClock }));
    assert.doesNotMatch(text, /PRIVATE KEY|BEGIN/);
  });
});

async function upstream(options: TlsOptions, answer: (socket: TLSSocket) => void = () => {}): Promise<string> {
  const listener = createServer({
    key: server.key.toPem(),
    cert: server.chain.map((certificate) => certificate.pem).join(''),
    ca: ca.certificate.pem,
    requestCert: true,
    rejectUnauthorized: true,
    ...options,
  });
  const sockets = new Set<TLSSocket>();
  listener.on('secureConnection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('data', () => answer(socket));
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    listener.close();
  });
  return `127.0.0.1:${(listener.address() as AddressInfo).port}`;
}
