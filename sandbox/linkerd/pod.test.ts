import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls';
import type { Identity } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { SandboxCa } from '../tls/ca.ts';
import { type Linkerd, startLinkerd } from './linkerd.ts';
import type { Pod, PodOptions } from './pod.ts';

describe('a pod with a proxy of Linkerd', () => {
  let mesh: Linkerd;
  let gateway: Identity;
  before(async () => {
    mesh = await startLinkerd();
    gateway = mesh.issueServer(mesh.identityOf('emissary', 'emissary'));
  });
  after(() => mesh.stop());

  const start = (options: Partial<PodOptions> = {}): Promise<Pod> =>
    mesh.startPod({ name: 'web-0', namespace: 'shop', serviceAccount: 'web', ...options });

  /** Completes a handshake and sends a request; returns the status line, or the failure. */
  async function ask(pod: Pod, options: ConnectionOptions & { readonly identity?: Identity } = {}): Promise<string> {
    const { identity, ...rest } = options;
    const socket = tlsConnect({
      port: pod.port,
      host: '127.0.0.1',
      servername: pod.id,
      ca: formatCertificates(mesh.bundle()),
      ...(identity && { cert: formatCertificates(identity.chain), key: identity.key.toPem() }),
      ...rest,
    });
    return answerOf(socket, socket);
  }

  async function answerOf(socket: Socket | TLSSocket, ready: Socket | TLSSocket): Promise<string> {
    return new Promise((resolve) => {
      let text = '';
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
      socket.on('close', () => resolve(text.split('\r\n')[0] || 'closed'));
      socket.on('data', (data) => {
        text += data.toString();
      });
      ready.once('encrypted' in ready ? 'secureConnect' : 'connect', () => {
        socket.write('GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n');
      });
    });
  }

  it('answers TLS 1.3 for its own name and selects no ALPN, whatever is offered', async () => {
    const pod = await start();
    const socket = tlsConnect({
      port: pod.port,
      host: '127.0.0.1',
      servername: pod.id,
      ca: formatCertificates(mesh.bundle()),
      ALPNProtocols: ['h2', 'http/1.1'],
    });
    await once(socket, 'secureConnect');
    assert.equal(socket.getProtocol(), 'TLSv1.3');
    assert.equal(socket.alpnProtocol, false);
    assert.deepEqual(socket.getPeerX509Certificate()?.subjectAltName, `DNS:${pod.id}`);
    socket.destroy();
  });

  it('passes any other name through, and accepts plaintext', async () => {
    const pod = await start();
    assert.match(await ask(pod, { servername: 'api.shop' }), /^(ERR_SSL|EPROTO|HTTP\/1\.1 400)/);
    assert.equal(pod.proxy?.counts.terminated, 0);
    const socket = connect(pod.port, '127.0.0.1');
    assert.equal(await answerOf(socket, socket), 'HTTP/1.1 200 OK');
    assert.equal(pod.proxy?.counts.passed, 2);
  });

  it('leaves idle connections open', async () => {
    const { headers } = await fetch(`http://127.0.0.1:${(await start()).port}/`);
    assert.equal(headers.get('keep-alive'), null);
  });

  it('refuses TLS 1.2', async () => {
    assert.match(await ask(await start(), { maxVersion: 'TLSv1.2' }), /PROTOCOL_VERSION/);
  });

  it('identifies a client by its certificate and accepts clients without one', async () => {
    const pod = await start();
    assert.equal(await ask(pod), 'HTTP/1.1 200 OK');
    assert.equal(await ask(pod, { identity: gateway }), 'HTTP/1.1 200 OK');
    assert.deepEqual([...pod.counts.clients.keys()], ['', gateway.id]);
  });

  it('disconnects a client whose certificate does not verify, even if none is required', async () => {
    const pod = await start();
    const identity = SandboxCa.root().identity({ dns: [gateway.id] });
    assert.match(await ask(pod, { identity }), /^(closed|ECONNRESET)$/);
    assert.equal(pod.counts.requests, 0);
    assert.match(pod.proxy?.lastRefusal ?? '', /^client certificate: /);
  });

  it('answers 403 by its policy', async () => {
    const authenticated = await start({ policy: 'all-authenticated' });
    assert.equal(await ask(authenticated), 'HTTP/1.1 403 Forbidden');
    assert.equal(await ask(authenticated, { identity: gateway }), 'HTTP/1.1 200 OK');
    const named = await start({ policy: { identities: [mesh.identityOf('other', 'emissary')] } });
    assert.equal(await ask(named, { identity: gateway }), 'HTTP/1.1 403 Forbidden');
  });

  it('accepts only proxies on 4143', async () => {
    const pod = await start({ port: 'proxy' });
    assert.match(await ask(pod, { ALPNProtocols: ['h2'] }), /NO_APPLICATION_PROTOCOL/);
    assert.match(await ask(pod), /^(closed|ECONNRESET)$/);
    assert.match(await ask(pod, { ALPNProtocols: ['transport.l5d.io/v1'] }), /^(closed|ECONNRESET)$/);
  });

  it('learns new roots only when it is restarted', async () => {
    const own = await startLinkerd();
    try {
      const pod = await own.startPod({ name: 'web-0', namespace: 'shop', serviceAccount: 'web' });
      const old = own.bundle();
      await own.addRoot();
      own.restartControlPlane();
      own.rotateIssuer();
      const identity = own.issueServer(own.identityOf('emissary', 'emissary'));
      assert.deepEqual(own.roots(), old);
      assert.match(await ask(pod, { identity, ca: formatCertificates(old) }), /^(closed|ECONNRESET)$/);
      await own.restartPods();
      assert.equal(await ask(pod, { identity, ca: formatCertificates(own.bundle()) }), 'HTTP/1.1 200 OK');
      assert.deepEqual(own.roots(), own.bundle());
    } finally {
      await own.stop();
    }
  });
});
