import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { oddIdentity } from '../../test/support/odd-identity.ts';
import { systemClock } from '../async/clock.ts';
import { parseCertificates } from '../pki/certificate.ts';
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

    it(`treats a connection that is cut after our certificate was sent as a refusal, over ${version}`, async () => {
      const cut = await front(await upstream({ minVersion: version, maxVersion: version }), (client) =>
        client.resetAndDestroy(),
      );
      const result = await probe({ address: cut }, client, [ca.root], { clock: systemClock });
      assert.equal(result.code, 'ERR_PROBE_REFUSED');
    });

    it(`reports that an upstream refuses our certificate, over ${version}`, async () => {
      const address = await upstream({ minVersion: version, maxVersion: version, ca: stranger.certificate.pem });
      const result = await probe({ address }, client, [ca.root], { clock: systemClock });
      assert.equal(result.code, 'ERR_PROBE_REFUSED');
    });
  }

  it('reports an upstream that does not verify under the bundle', async () => {
    const address = await upstream({});
    const result = await probe({ address }, client, [stranger.root], { clock: systemClock });
    assert.equal(result.code, 'ERR_PROBE_UPSTREAM_UNTRUSTED');
  });

  it('reports an upstream with another identity', async () => {
    const address = await upstream({});
    const result = await probe({ address, id: 'spiffe://td/ns/shop/sa/other' }, client, [ca.root], {
      clock: systemClock,
    });
    assert.equal(result.code, 'ERR_PROBE_UPSTREAM_ID');
    assert.match(result.message, /presents spiffe:\/\/td\/ns\/shop\/sa\/web, not/);
  });

  it('sends an HTTP request if configured and reports the status', async () => {
    const address = await upstream({}, (socket) => socket.end('HTTP/1.1 204 No Content\r\n\r\n'));
    const result = await probe({ address, http: { path: '/healthz' } }, client, [ca.root], { clock: systemClock });
    assert.deepEqual([result.code, result.httpStatus], ['accepted', 204]);
  });

  it('reports an upstream that hangs up instead of answering', async () => {
    const address = await upstream({}, (socket) => socket.end());
    const result = await probe({ address, http: { path: '/' } }, client, [ca.root], { clock: systemClock });
    assert.equal(result.code, 'ERR_PROBE_REFUSED');
  });

  it('treats an alert about our certificate as a refusal', async () => {
    const unknownCa = Buffer.from([21, 3, 3, 0, 2, 2, 48]);
    const alerting = await front(await upstream({ maxVersion: 'TLSv1.2' }), (socket) => socket.end(unknownCa));
    const result = await probe({ address: alerting }, client, [ca.root], { clock: systemClock });
    assert.equal(result.code, 'ERR_PROBE_REFUSED');
    assert.match(result.message, /UNKNOWN_CA/);
  });

  for (const [what, serve] of [
    ['a proxy with nothing behind it', (socket: Socket) => socket.resetAndDestroy()],
    ['a port that closes at once', (socket: Socket) => socket.end()],
    ['a server without TLS', (socket: Socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')],
    [
      'a server that wants another version of TLS',
      (socket: Socket) => socket.end(Buffer.from([21, 3, 3, 0, 2, 2, 70])),
    ],
  ] as const) {
    it(`does not mistake ${what} for one that refuses our certificate, which it never saw`, async () => {
      const address = await listen(
        createTcpServer((socket) => socket.on('error', () => {}).once('data', () => serve(socket))),
      );
      const result = await probe({ address }, client, [ca.root], { clock: systemClock });
      assert.equal(result.code, 'ERR_PROBE_UNREACHABLE', result.message);
    });
  }

  it('reports an address without a listener', async () => {
    const address = await upstream({});
    for (const clean of cleanups.splice(-1)) clean();
    const result = await probe({ address }, client, [ca.root], { clock: systemClock });
    assert.equal(result.code, 'ERR_PROBE_UNREACHABLE');
    assert.match(result.message, /ECONNREFUSED/);
  });

  it('survives an upstream whose certificate has an extension that is not DER', async () => {
    const odd = await oddIdentity();
    const address = await upstream({ key: odd.key, cert: odd.cert });
    for (const id of [undefined, 'spiffe://td/ns/shop/sa/web']) {
      const trusting = await probe({ address, ...(id && { id }) }, client, parseCertificates(odd.ca), {
        clock: systemClock,
      });
      assert.ok(['accepted', 'ERR_PROBE_UPSTREAM_ID'].includes(trusting.code), trusting.message);
      const distrusting = await probe({ address, ...(id && { id }) }, client, [ca.root], { clock: systemClock });
      assert.equal(distrusting.code, 'ERR_PROBE_UPSTREAM_UNTRUSTED');
    }
  });

  it('reports an error that TLS throws as a result', async () => {
    const identity = { key: client.key, chain: client.chain };
    for (const [probeSpec, tls] of [
      [{ address: 'h:99999' }, {}],
      [{ address: 'nonsense' }, {}],
      [{ address: '127.0.0.1:1' }, { alpnProtocols: 'x'.repeat(300) }],
    ] as const) {
      const result = await probe(probeSpec, identity, [ca.root], { clock: systemClock, tls });
      assert.equal(result.code, 'ERR_PROBE_FAILED', result.message);
    }
  });

  it('never includes key material in its results', async () => {
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
  listener.on('secureConnection', (socket) => {
    socket.on('error', () => {});
    socket.once('data', () => answer(socket));
  });
  return listen(listener);
}

/** Forwards data to the upstream until the client's second flight, which contains its certificate. */
function front(address: string, instead: (client: Socket) => void): Promise<string> {
  const server = createTcpServer((client) => {
    const upstream = connect(Number(address.split(':').at(-1)), '127.0.0.1');
    for (const socket of [client, upstream]) socket.on('error', () => {});
    upstream.pipe(client, { end: false });
    let answered = false;
    upstream.once('data', () => {
      answered = true;
    });
    client.on('data', (data) => {
      if (!answered) return upstream.write(data);
      upstream.destroy();
      instead(client);
    });
  });
  return listen(server);
}

async function listen(server: Server): Promise<string> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}
