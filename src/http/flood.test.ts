import assert from 'node:assert/strict';
import { get } from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Board, goodStatus } from '../../test/support/board.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { silentLog } from '../mesh/log.ts';
import { type HttpServer, startHttp } from './server.ts';

const NOW = Date.UTC(2026, 0, 1);
const MIB = 1024 * 1024;

async function withServer(use: (server: HttpServer, made: { metrics: number }) => Promise<void>): Promise<void> {
  const made = { metrics: 0 };
  const board = new Board();
  board.put('istio', goodStatus(NOW));
  const expose = () => {
    made.metrics += 1;
    return 'x'.repeat(MIB);
  };
  const server = await startHttp({
    host: '127.0.0.1',
    port: 0,
    allowedHosts: ['meshcert.example.com'],
    version: '1.2.3',
    source: board,
    health: () => ({ ready: true, problems: [] }),
    metrics: { expose },
    clock: new FakeClock(NOW),
    log: silentLog,
  });
  const sockets: Socket[] = [];
  try {
    await use(server, made);
  } finally {
    for (const socket of sockets) socket.destroy();
    await server.stop();
  }
}

/** Over a new connection, like kubelet. */
function status(url: string, path: string, host?: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const headers = host === undefined ? {} : { host };
    get(new URL(path, url), { agent: false, headers }, (answer) => resolve(answer.resume().statusCode)).on(
      'error',
      reject,
    );
  });
}

async function open(port: number, count: number, text: string): Promise<Socket[]> {
  return Promise.all(
    Array.from({ length: count }, () => {
      return new Promise<Socket>((resolve) => {
        const socket = connect(port, '127.0.0.1', () => {
          socket.pause();
          socket.write(text, () => resolve(socket));
        });
        socket.on('error', () => resolve(socket));
      });
    }),
  );
}

const close = (sockets: readonly Socket[]) => {
  for (const socket of sockets) socket.destroy();
};

describe('the HTTP server under a flood', () => {
  for (const [what, text] of [
    ['kept alive after a request', 'GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'],
    ['without a whole request', 'GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\nX: '],
    ['without a byte', ''],
  ] as const) {
    it(`answers probes beside a thousand connections ${what}`, () =>
      withServer(async ({ url, port }) => {
        const sockets = await open(port, 1_000, text);
        for (const path of ['/healthz', '/readyz']) assert.equal(await status(url, path), 200);
        close(sockets);
      }));
  }

  it('makes no more answers than the limit while nobody reads them, and all again afterwards', () =>
    withServer(async ({ url, port }, made) => {
      const sockets = await open(port, 100, 'GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.repeat(4));
      for (let next = 200; next !== 503; await turn()) next = (await status(url, '/metrics')) ?? 0;
      assert.equal(await status(url, '/healthz'), 200);
      assert.ok(made.metrics < 100, `${made.metrics} answers of a MiB were made`);
      close(sockets);
      for (let next = 503; next !== 200; await turn()) next = (await status(url, '/metrics')) ?? 0;
    }));

  it('closes a connection that sends requests without reading answers', () =>
    withServer(async ({ port }) => {
      const [socket] = await open(port, 1, 'GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.repeat(2_000));
      assert.ok(socket);
      await new Promise((resolve) => socket.once('close', resolve).resume());
    }));
});

describe('the Host header', () => {
  it('of another site is refused with a code on every route but /healthz', () =>
    withServer(async ({ url, port }) => {
      for (const path of ['/', '/readyz', '/metrics', '/api/status', '/events', '/nowhere']) {
        assert.equal(await status(url, path, `attacker.example:${port}`), 421, path);
      }
      assert.equal(await status(url, '/healthz', 'attacker.example'), 200);
      const answer = await new Promise<string>((resolve) => {
        const socket = connect(port, '127.0.0.1', () =>
          socket.end('GET /api/status HTTP/1.1\r\nHost: a.example\r\n\r\n'),
        );
        let text = '';
        socket.on('data', (data) => {
          text += data;
        });
        socket.once('end', () => resolve(text));
      });
      assert.match(answer, /421 [\s\S]*ERR_HTTP_HOST: .*--allowed-hosts/);
      assert.doesNotMatch(answer, /istio/);
    }));

  it('of kubelet, Prometheus, port-forward and of an allowed name is accepted', () =>
    withServer(async ({ url, port }) => {
      for (const host of ['10.0.0.7', 'localhost', 'meshcert.emissary.svc', 'meshcert.example.com']) {
        assert.equal(await status(url, '/api/status', `${host}:${port}`), 200, host);
      }
    }));
});
