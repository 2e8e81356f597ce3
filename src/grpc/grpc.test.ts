import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { type RunningServer, type ServeOptions, type ServerStream, serve } from '../../sandbox/grpc/server.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { formatCertificates } from '../pki/certificate.ts';
import { openChannel } from './channel.ts';
import { GrpcError, grpcStatus } from './error.ts';
import { messageType } from './messages.ts';

const CA = 'istio.v1.auth.IstioCertificateService';
const CREATE = `${CA}/CreateCertificate`;
const SDS = 'envoy.service.secret.v3.SecretDiscoveryService';
const STREAM = `${SDS}/StreamSecrets`;

const directory = mkdtempSync(join(tmpdir(), 'grpc-'));
after(() => rmSync(directory, { recursive: true }));

interface Answer {
  cert_chain: string[];
}
interface Discovery {
  nonce: string;
}

const echo = { unary: (request: { csr: string }) => ({ cert_chain: [request.csr] }) };
const silent = {
  stream: (stream: ServerStream<never, object>) =>
    new Promise<void>((resolve) => stream.context.signal.addEventListener('abort', () => resolve())),
};

async function withServer(
  options: Partial<ServeOptions>,
  run: (server: RunningServer) => Promise<void>,
): Promise<void> {
  const server = await serve({ services: { [CA]: { CreateCertificate: echo } }, listen: { port: 0 }, ...options });
  try {
    await run(server);
  } finally {
    await server.stop();
  }
}

type ChannelTarget = Parameters<typeof openChannel>[0];
type CallTarget = Pick<ChannelTarget, 'address'> & Partial<ChannelTarget>;

async function call(target: CallTarget, metadata: Record<string, string> = {}): Promise<Answer> {
  const channel = openChannel({ tls: 'plaintext', ...target });
  try {
    return await channel.unary<Answer>({ csr: 'x' }, { method: CREATE, deadlineMs: 10_000, metadata });
  } finally {
    channel.close();
  }
}

const refusal = (expected: { statusName: string; reach?: string; details?: RegExp }) => (error: unknown) => {
  assert.ok(error instanceof GrpcError, String(error));
  assert.equal(error.statusName, expected.statusName, error.message);
  if (expected.reach) assert.equal(error.reach, expected.reach, error.message);
  if (expected.details) assert.match(error.details, expected.details);
  return true;
};

const serverTls = (ca: SandboxCa, dns: string) => {
  const { key, chain } = ca.identity({ dns: [dns] });
  return { cert: formatCertificates(chain), key: key.toPem() };
};

test('a unary call answers over TCP and over a unix socket', async () => {
  await withServer({}, async ({ address }) => assert.deepEqual((await call({ address })).cert_chain, ['x']));
  const path = join(directory, 'unary');
  await withServer({ listen: { path } }, async ({ address }) => {
    assert.equal(address, `unix:${path}`);
    assert.deepEqual((await call({ address })).cert_chain, ['x']);
  });
});

test('metadata reaches the handler in lower case, and its GrpcError reaches the caller', async () => {
  const services = {
    [CA]: {
      CreateCertificate: {
        unary: (_request: never, { metadata }: { metadata: Readonly<Record<string, string>> }) => {
          throw new GrpcError(grpcStatus.UNAUTHENTICATED, `cluster ${metadata.clusterid}`);
        },
      },
    },
  };
  await withServer({ services }, async ({ address }) => {
    await assert.rejects(
      call({ address }, { ClusterID: 'Kubernetes' }),
      refusal({ statusName: 'UNAUTHENTICATED', reach: 'answered', details: /cluster Kubernetes/ }),
    );
  });
});

test('a method without a handler is UNIMPLEMENTED', async () => {
  await withServer({ services: { [CA]: {} } }, async ({ address }) => {
    await assert.rejects(call({ address }), refusal({ statusName: 'UNIMPLEMENTED' }));
  });
});

test('TLS is verified against the given roots and server name', async () => {
  const ca = SandboxCa.root();
  await withServer({ tls: serverTls(ca, 'istiod.istio-system.svc') }, async ({ address }) => {
    const roots = formatCertificates([ca.root]);
    const good = { ca: roots, serverName: 'istiod.istio-system.svc' };
    assert.deepEqual((await call({ address, tls: good })).cert_chain, ['x']);
    const untrusted = refusal({ statusName: 'UNAVAILABLE', reach: 'untrusted' });
    await assert.rejects(
      call({ address, tls: { ...good, ca: formatCertificates([SandboxCa.root().root]) } }),
      untrusted,
    );
    await assert.rejects(call({ address, tls: { ...good, serverName: 'other' } }), untrusted);
    await assert.rejects(call({ address, tls: { ca: roots } }), untrusted);
  });
});

test('TLS towards a plaintext server counts as untrusted', async () => {
  await withServer({}, async ({ address }) => {
    await assert.rejects(call({ address, tls: {} }), refusal({ statusName: 'UNAVAILABLE', reach: 'untrusted' }));
  });
});

test('an address is verified against the addresses in the certificate, and never sent as a server name', async () => {
  const ca = SandboxCa.root();
  const roots = formatCertificates([ca.root]);
  const named: (string | false | null)[] = [];
  const { key, chain } = ca.identity({ ips: ['127.0.0.1'] });
  const server = createTlsServer({ key: key.toPem(), cert: formatCertificates(chain), ALPNProtocols: ['h2'] });
  server.on('secureConnection', (socket) => {
    named.push(socket.servername);
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as { port: number };
    await assert.rejects(call({ address: `127.0.0.1:${port}`, tls: { ca: roots } }), GrpcError);
    await assert.rejects(
      call({ address: `localhost:${port}`, tls: { ca: roots } }),
      refusal({ statusName: 'UNAVAILABLE', reach: 'untrusted' }),
    );
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
  assert.equal(named[0], false);
});

test('a server takes a new certificate without a restart', async () => {
  const [old, next] = [SandboxCa.root(), SandboxCa.root()];
  await withServer({ tls: serverTls(old, 'ca') }, async (server) => {
    server.setTls(serverTls(next, 'ca'));
    const { address } = server;
    assert.ok(await call({ address, tls: { ca: formatCertificates([next.root]), serverName: 'ca' } }));
  });
});

test('a client certificate is passed to the handler when it verifies', async () => {
  const ca = SandboxCa.root();
  const seen: (string | undefined)[] = [];
  const services = {
    [CA]: {
      CreateCertificate: {
        unary: (_: never, context: { clientCertificate: { subjectaltname?: string } | undefined }) => {
          seen.push(context.clientCertificate?.subjectaltname);
          return { cert_chain: [] };
        },
      },
    },
  };
  const roots = formatCertificates([ca.root]);
  await withServer({ services, tls: { ...serverTls(ca, 'ca'), clientCa: roots } }, async ({ address }) => {
    const base = { ca: roots, serverName: 'ca' };
    const client = (issuer: SandboxCa) => {
      const { key, chain } = issuer.identity({ uris: ['spiffe://td/a'] });
      return { ...base, key: key.toPem(), cert: formatCertificates(chain) };
    };
    await call({ address, tls: base });
    await call({ address, tls: client(ca) });
    await call({ address, tls: client(SandboxCa.root()) });
  });
  assert.deepEqual(seen, [undefined, 'URI:spiffe://td/a', undefined]);
});

test('an absent server is distinguished from a refusal', async () => {
  const unconnected = refusal({ statusName: 'UNAVAILABLE', reach: 'unconnected' });
  const spare = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => spare.once('listening', resolve));
  const { port } = spare.address() as { port: number };
  await new Promise((resolve) => spare.close(resolve));
  await assert.rejects(call({ address: `127.0.0.1:${port}` }), unconnected);
  await assert.rejects(call({ address: `unix:${join(directory, 'absent')}`, tls: 'plaintext' }), unconnected);
});

test('an aborted unary call rejects with the reason and leaves no listener', async () => {
  const services = { [CA]: { CreateCertificate: { unary: () => new Promise<object>(() => {}) } } };
  await withServer({ services }, async ({ address }) => {
    const channel = openChannel({ address, tls: 'plaintext' });
    const abort = new AbortController();
    const call = channel.unary({}, { method: CREATE, deadlineMs: 60_000, signal: abort.signal });
    const reason = new Error('enough');
    abort.abort(reason);
    await assert.rejects(call, reason);
    await assert.rejects(channel.unary({}, { method: CREATE, deadlineMs: 1, signal: abort.signal }), reason);
    await assert.rejects(
      channel.unary({}, { method: CREATE, deadlineMs: 1 }),
      refusal({ statusName: 'DEADLINE_EXCEEDED' }),
    );
    const fresh = new AbortController();
    await assert.rejects(channel.unary({}, { method: CREATE, deadlineMs: 1, signal: fresh.signal }));
    assert.equal(getEventListeners(fresh.signal, 'abort').length, 0);
    channel.close();
  });
});

test('both sides of a stream see the messages in order, and the end', async () => {
  const stream = async (stream: ServerStream<{ response_nonce: string }, object>) => {
    for await (const { response_nonce } of stream) {
      for (let n = 0; n < 40; n++) stream.write({ nonce: `${response_nonce}${n}` });
    }
  };
  await withServer({ services: { [SDS]: { StreamSecrets: { stream } } } }, async ({ address }) => {
    const channel = openChannel({ address, tls: 'plaintext' });
    const duplex = channel.stream<object, Discovery>({ method: STREAM });
    duplex.write({ response_nonce: 'a' });
    duplex.end();
    const nonces: string[] = [];
    for await (const { nonce } of duplex) nonces.push(nonce);
    assert.deepEqual(
      nonces,
      Array.from({ length: 40 }, (_, n) => `a${n}`),
    );
    channel.close();
  });
});

test('messages before a failure are delivered before the failure', async () => {
  const stream = async (stream: ServerStream<never, object>) => {
    stream.write({ nonce: '1' });
    stream.write({ nonce: '2' });
    throw new GrpcError(grpcStatus.INVALID_ARGUMENT, 'missing node information');
  };
  await withServer({ services: { [SDS]: { StreamSecrets: { stream } } } }, async ({ address }) => {
    const channel = openChannel({ address, tls: 'plaintext' });
    const seen: string[] = [];
    await assert.rejects(
      async () => {
        for await (const { nonce } of channel.stream<object, Discovery>({ method: STREAM })) seen.push(nonce);
      },
      refusal({ statusName: 'INVALID_ARGUMENT', details: /missing node/ }),
    );
    assert.deepEqual(seen, ['1', '2']);
    channel.close();
  });
});

test('a stream that failed before anyone read it still reports the failure', async () => {
  const channel = openChannel({ address: `unix:${join(directory, 'absent')}`, tls: 'plaintext' });
  const stream = channel.stream({ method: STREAM });
  await assert.rejects(channel.unary({}, { method: CREATE, deadlineMs: 10_000 }));
  await assert.rejects(stream[Symbol.asyncIterator]().next(), refusal({ statusName: 'UNAVAILABLE' }));
  channel.close();
});

test('an aborted stream throws the reason, tells the server and leaves no listener', async () => {
  let gone = () => {};
  const serverSaw = new Promise<void>((resolve) => {
    gone = resolve;
  });
  const stream = async (stream: ServerStream<never, object>) => {
    stream.context.signal.addEventListener('abort', gone);
    stream.write({ nonce: '1' });
    await silent.stream(stream);
  };
  await withServer({ services: { [SDS]: { StreamSecrets: { stream } } } }, async ({ address }) => {
    const channel = openChannel({ address, tls: 'plaintext' });
    const abort = new AbortController();
    const messages = channel.stream<object, Discovery>({ method: STREAM, signal: abort.signal });
    const reason = new Error('enough');
    await assert.rejects(async () => {
      for await (const { nonce } of messages) {
        assert.equal(nonce, '1');
        abort.abort(reason);
      }
    }, reason);
    await serverSaw;
    assert.equal(getEventListeners(abort.signal, 'abort').length, 0);
    channel.close();
  });
});

test('leaving the loop cancels the call, and closing the channel ends every stream without an error', async () => {
  const ends: Promise<void>[] = [];
  const stream = (stream: ServerStream<never, object>) => {
    stream.write({ nonce: '1' });
    const end = silent.stream(stream);
    ends.push(end);
    return end;
  };
  await withServer({ services: { [SDS]: { StreamSecrets: { stream } } } }, async (server) => {
    const channel = openChannel({ address: server.address, tls: 'plaintext' });
    for await (const _ of channel.stream({ method: STREAM })) break;
    const second = channel.stream({ method: STREAM })[Symbol.asyncIterator]();
    await second.next();
    const rest = second.next();
    channel.close();
    assert.equal((await rest).done, true);
    await server.drain();
    await Promise.all(ends);
    assert.equal(ends.length, 2);
  });
});

test('keys that differ from the generated names are not invented', () => {
  const type = messageType<{ trusted_ca: { specifier: string; inline_bytes: Buffer }; type: string }>(
    'envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext',
  );
  const bytes = type.encode({ trusted_ca: { specifier: 'inline_bytes', inline_bytes: Buffer.from('pem') }, type: '' });
  const back = type.decode(bytes);
  assert.equal(back.trusted_ca.specifier, 'inline_bytes');
  assert.equal(back.trusted_ca.inline_bytes.toString(), 'pem');
  assert.throws(() => messageType('envoy.No'), /no protobuf definition of envoy.No/);
});

test('a channel that is closed during the TLS handshake leaves no connection behind', async () => {
  let resolve: () => void;
  const ended = new Promise<void>((done) => {
    resolve = done;
  });
  const server = createServer((socket) =>
    socket
      .on('error', () => {})
      .on('close', () => resolve())
      .resume(),
  );
  const port = await new Promise<number>((listening) => {
    server.listen(0, '127.0.0.1', () => listening((server.address() as { port: number }).port));
  });
  const ca = SandboxCa.root({ name: 'mesh' }).certificate.pem;
  const channel = openChannel({ address: `127.0.0.1:${port}`, tls: { ca } });
  await assert.rejects(channel.unary({ csr: 'x' }, { method: CREATE, deadlineMs: 300 }));
  channel.close();
  await ended;
  server.close();
});
