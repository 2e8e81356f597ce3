import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  constants,
  createSecureServer,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type Settings,
} from 'node:http2';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it, type TestContext } from 'node:test';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { startTcpProxy } from '../../../test/peers/parts/tcp-proxy.ts';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import { ApiConnections, type ApiRequest } from './connections.ts';

const REQUEST: ApiRequest = { method: 'GET', path: '/version', headers: {}, body: undefined };
const DEADLINE_MS = 30_000;

type Respond = (stream: ServerHttp2Stream, path: string) => void;

interface Rig {
  readonly clock: FakeClock;
  readonly connections: ApiConnections;
  /** Of all connections until now, in order. */
  readonly sessions: readonly ServerHttp2Session[];
  /** The paths of all requests until now. */
  readonly paths: readonly string[];
  send(path?: string, method?: ApiRequest['method'], signal?: AbortSignal): ReturnType<ApiConnections['send']>;
  /** From now on nothing passes on the open connections, as behind a load balancer that forgot them. */
  stall(): void;
}

/** Answers all paths but those of watches, which stay open. */
const usual: Respond = (stream, path) => {
  stream.respond({ ':status': 200 });
  if (!path.startsWith('/watch')) stream.end('{}');
};

async function rig(test: TestContext, respond: Respond = usual, settings: Settings = {}): Promise<Rig> {
  const ca = SandboxCa.root({ name: 'API' });
  const { chain, key } = ca.identity({ dns: ['localhost'], lifetimeMs: 3_600_000 });
  const cert = chain.map(({ pem }) => pem).join('');
  const server = createSecureServer({ cert, key: key.toPem(), settings });
  const sessions: ServerHttp2Session[] = [];
  const paths: string[] = [];
  server.on('session', (session) => sessions.push(session));
  server.on('sessionError', () => undefined);
  server.on('stream', (stream, { ':path': path = '' }) => {
    stream.on('error', () => undefined);
    paths.push(path);
    respond(stream, path);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const balancer = await startTcpProxy(() => (server.address() as AddressInfo).port);
  const clock = new FakeClock();
  const connections = new ApiConnections(
    {
      server: new URL(`https://127.0.0.1:${balancer.port}`),
      headers: {},
      tls: { ca: ca.certificate.pem, servername: 'localhost' },
      proxy: undefined,
      generation: 1,
    },
    { clock, deadlineMs: DEADLINE_MS },
  );
  test.after(async () => {
    connections[Symbol.dispose]();
    assert.equal(clock.sleeping, 0);
    await balancer[Symbol.asyncDispose]();
    for (const session of sessions) session.destroy();
    server.close();
  });
  return {
    clock,
    connections,
    sessions,
    paths,
    stall: () => balancer.stall(),
    send: (path = '/version', method = 'GET', signal = new AbortController().signal) =>
      connections.send({ ...REQUEST, method, path, body: method === 'GET' ? undefined : '{}' }, signal),
  };
}

const bodyOf = async (response: ReturnType<ApiConnections['send']>): Promise<string> => text((await response).body);

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise(setImmediate);
}

describe('connections over HTTP/2', { timeout: 60_000 }, () => {
  it('are one for many requests and watches, and one more for each 90 streams', async (test) => {
    const { send, sessions } = await rig(test);
    await Promise.all(Array.from({ length: 80 }, (_, number) => send(`/watch/${number}`)));
    assert.equal(sessions.length, 1);
    for (let round = 0; round < 10; round += 1) await bodyOf(send());
    assert.equal(sessions.length, 1);
    await Promise.all(Array.from({ length: 200 }, (_, number) => send(`/watch/more/${number}`)));
    assert.equal(sessions.length, 4);
  });

  it('have no more streams than the server allows', async (test) => {
    const { send, sessions } = await rig(test, usual, { maxConcurrentStreams: 3 });
    await Promise.all(Array.from({ length: 10 }, (_, number) => send(`/watch/${number}`)));
    assert.equal(sessions.length, 4);
    assert.equal(await bodyOf(send()), '{}');
  });

  it('keep their open streams when the server asks for no more, and others begin on a new one', async (test) => {
    const streams: ServerHttp2Stream[] = [];
    const { send, sessions } = await rig(test, (stream, path) => {
      usual(stream, path);
      streams.push(stream);
    });
    const watch = await send('/watch');
    sessions[0]?.close();
    await until(() => streams[0]?.session?.closed === true);
    // The frame may not have arrived: a request that it overtakes is refused, and repeated.
    assert.equal(await bodyOf(send('/version', 'PATCH')), '{}');
    assert.equal(sessions.length, 2);
    streams[0]?.end('the end');
    assert.equal(await text(watch.body), 'the end');
    await until(() => sessions[0]?.destroyed === true);
  });

  it('repeat a request that the server refused to look at, also a write', async (test) => {
    let refused = 0;
    const { send, paths } = await rig(test, (stream, path) => {
      if (refused++ === 0) stream.close(constants.NGHTTP2_REFUSED_STREAM);
      else usual(stream, path);
    });
    assert.equal(await bodyOf(send('/apply', 'PATCH')), '{}');
    assert.deepEqual(paths, ['/apply', '/apply']);
  });

  it('give up on a server that refuses everything', async (test) => {
    const { send, paths } = await rig(test, (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM));
    await assert.rejects(send('/apply', 'PATCH'), { message: 'the API server refused the stream' });
    assert.equal(paths.length, 3);
  });

  it('repeat a read, and not a write, when a connection that was used before is cut', async (test) => {
    const { send, sessions, paths } = await rig(test, (stream, path) => {
      if (path === '/cut' && sessions.length === 1) stream.session?.destroy();
      else usual(stream, path);
    });
    await bodyOf(send('/first'));
    assert.equal(await bodyOf(send('/cut')), '{}');
    assert.deepEqual(paths, ['/first', '/cut', '/cut']);
  });

  it('do not repeat a write when the connection is cut', async (test) => {
    const { send, paths } = await rig(test, (stream, path) => {
      if (path === '/cut') stream.session?.destroy();
      else usual(stream, path);
    });
    await bodyOf(send('/first'));
    await assert.rejects(send('/cut', 'PATCH'), { code: 'ECONNRESET' });
    assert.deepEqual(paths, ['/first', '/cut']);
  });

  it('cancel a request by its stream alone', async (test) => {
    const streams: ServerHttp2Stream[] = [];
    const { send, sessions } = await rig(test, (stream, path) => {
      if (path === '/slow') streams.push(stream);
      else usual(stream, path);
    });
    const stop = new AbortController();
    const sent = send('/slow', 'GET', stop.signal);
    sent.catch(() => undefined);
    await until(() => streams.length === 1);
    stop.abort(new Error('enough'));
    await assert.rejects(sent, /enough/);
    await until(() => streams[0]?.closed === true);
    assert.equal(streams[0]?.rstCode, constants.NGHTTP2_CANCEL);
    assert.equal(sessions[0]?.destroyed, false);
  });

  it('end when the server is silent and does not answer a PING', async (test) => {
    const { send, sessions, stall, clock } = await rig(test);
    const watch = await send('/watch');
    stall();
    await clock.advance(30_000);
    await clock.advance(14_999);
    assert.equal(watch.body.destroyed, false);
    await clock.advance(1);
    await assert.rejects(text(watch.body), /no answer to a PING within 15 s/);
    assert.equal(await bodyOf(send()), '{}');
    assert.equal(sessions.length, 2);
  });

  it('end their watches when the server is silent after it asked for no more streams', async (test) => {
    const { send, sessions, stall, clock } = await rig(test);
    const watch = await send('/watch');
    sessions[0]?.close();
    // The GOAWAY arrives before the refusal, or the answer, of a later request.
    await bodyOf(send());
    stall();
    await clock.advance(40_000);
    assert.equal(await text(watch.body), '');
    assert.equal(await bodyOf(send()), '{}');
  });

  it('stay open when a silent server answers the PING', async (test) => {
    const { send, sessions, clock } = await rig(test);
    const watch = await send('/watch');
    for (let minute = 0; minute < 5; minute += 1) {
      const pinged = once(sessions[0] as ServerHttp2Session, 'ping');
      await clock.advance(30_000);
      await pinged;
      // The answer arrives before that of a later request.
      await bodyOf(send());
    }
    assert.equal(watch.body.destroyed, false);
  });

  it('are not used again after a request without an answer, until one arrives', async (test) => {
    const { send, sessions, stall } = await rig(test);
    await bodyOf(send());
    stall();
    const stop = new AbortController();
    const sent = send('/lost', 'GET', stop.signal);
    stop.abort(new Error('too late'));
    await assert.rejects(sent, /too late/);
    assert.equal(await bodyOf(send('/next')), '{}');
    assert.equal(sessions.length, 2);
  });

  it('end when nothing is open for half a minute', async (test) => {
    const { send, sessions, clock } = await rig(test);
    await bodyOf(send());
    await clock.advance(30_000);
    await until(() => sessions[0]?.destroyed === true);
    assert.equal(await bodyOf(send()), '{}');
  });

  it('give the whole body of a response that was complete before anybody read it', async (test) => {
    const streams: ServerHttp2Stream[] = [];
    const { send } = await rig(test, (stream, path) => {
      streams.push(stream);
      usual(stream, path);
    });
    for (const method of ['GET', 'PATCH'] as const) {
      const response = await send('/version', method);
      await until(() => streams.at(-1)?.destroyed === true);
      // And once more, so that the end of the stream has arrived here too.
      await bodyOf(send());
      assert.equal(await text(response.body), '{}', method);
    }
  });

  it('pass other responses while a watch is not read', async (test) => {
    const { send, sessions } = await rig(test, (stream, path) => {
      stream.respond({ ':status': 200 });
      if (path === '/watch') stream.write(Buffer.alloc(4 * 1024 * 1024));
      else stream.end('{}'.padEnd(1024 * 1024));
    });
    await send('/watch');
    for (let round = 0; round < 8; round += 1) assert.equal((await bodyOf(send())).length, 1024 * 1024);
    assert.equal(sessions.length, 1);
  });

  it('carry as many large writes as are sent at a time', async (test) => {
    const { connections, sessions } = await rig(test, (stream) => {
      let size = 0;
      stream.on('data', (piece: Buffer) => {
        size += piece.length;
      });
      stream.on('end', () => {
        stream.respond({ ':status': 200 });
        stream.end(String(size));
      });
    });
    const body = 'x'.repeat(1024 * 1024);
    const { signal } = new AbortController();
    const sent = Array.from({ length: 32 }, () =>
      bodyOf(connections.send({ ...REQUEST, method: 'PATCH', body }, signal)),
    );
    for (const answer of await Promise.all(sent)) assert.equal(answer, String(body.length));
    assert.equal(sessions.length, 1);
  });

  it('are given up when the server does not answer in half of the time for a request', async (test) => {
    await using server = await silentServer(test);
    const sent = server.send();
    sent.catch(() => undefined);
    await until(() => server.accepted.length === 1);
    await server.clock.advance(15_000);
    await assert.rejects(sent, /no connection within 15 s/);
  });

  it('are not waited for by a request that begins after all others have given up', async (test) => {
    await using server = await silentServer(test);
    for (const attempt of [1, 2]) {
      const stop = new AbortController();
      const both = [server.send(stop.signal), server.send(stop.signal)];
      await until(() => server.accepted.length === attempt);
      stop.abort(new Error('too late'));
      for (const sent of both) await assert.rejects(sent, /too late/);
      await until(() => server.accepted[attempt - 1]?.destroyed === true);
    }
  });
});

/** Accepts connections, and says nothing. */
async function silentServer(test: TestContext) {
  const accepted: Socket[] = [];
  const server = createServer((socket) => accepted.push(socket.on('error', () => undefined).resume()));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const clock = new FakeClock();
  const connections = new ApiConnections(
    {
      server: new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`),
      headers: {},
      tls: {},
      proxy: undefined,
      generation: 1,
    },
    { clock, deadlineMs: DEADLINE_MS },
  );
  test.after(() => assert.equal(clock.sleeping, 0));
  return {
    accepted,
    clock,
    send: (signal = new AbortController().signal) => connections.send(REQUEST, signal),
    async [Symbol.asyncDispose]() {
      connections[Symbol.dispose]();
      for (const socket of accepted) socket.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}
