import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { test } from 'node:test';
import { Board, badStatus, goodStatus } from '../../test/support/board.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { silentLog } from '../mesh/log.ts';
import { startHttp } from './server.ts';
import type { AgentHealth } from './source.ts';

const NOW = Date.UTC(2026, 0, 1);

async function withServer(
  use: (context: { url: string; board: Board; clock: FakeClock; health: { now: AgentHealth } }) => Promise<void>,
): Promise<void> {
  const clock = new FakeClock(NOW);
  const board = new Board();
  const health: { now: AgentHealth } = { now: { ready: true, leader: true, problems: [] } };
  const server = await startHttp({
    allowedHosts: [],
    host: '127.0.0.1',
    port: 0,
    version: '1.2.3',
    source: board,
    health: () => health.now,
    metrics: { expose: () => '# HELP x y\n' },
    clock,
    log: silentLog,
  });
  try {
    await use({ url: server.url, board, clock, health });
  } finally {
    await server.stop();
  }
}

/** The events of a stream as they arrive. */
async function* events(url: string, signal: AbortSignal) {
  const response = await fetch(url, { signal });
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
  let text = '';
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString();
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      if (event.startsWith('event: status\n')) yield JSON.parse(event.slice(event.indexOf('data: ') + 6));
    }
  }
}

/** The stream waits for a moment after each change: the clock is advanced once it does. */
async function next<T>(stream: AsyncIterator<T>, clock: FakeClock): Promise<T> {
  const pending = stream.next();
  let done = false;
  pending.then(
    () => (done = true),
    () => (done = true),
  );
  while (!done) {
    await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(100);
  }
  const { value } = await pending;
  return value;
}

test('health is 200 as long as the process answers', () =>
  withServer(async ({ url, health }) => {
    health.now = { ready: false, problems: [] };
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
  }));

test('readiness is 503 until ready, and names the coded errors in both states', () =>
  withServer(async ({ url, board, health }) => {
    board.put('istio', badStatus(NOW));
    health.now = { ready: false, leader: false, problems: [{ code: 'ERR_CONFIG', message: 'mesh.yaml:3: bad' }] };
    const starting = await fetch(`${url}/readyz`);
    assert.equal(starting.status, 503);
    const { lastError, nextAttemptTime } = badStatus(NOW);
    assert.deepEqual(await starting.json(), {
      ready: false,
      leader: false,
      problems: [
        { code: 'ERR_CONFIG', message: 'mesh.yaml:3: bad' },
        {
          code: 'ERR_MESH_UNREACHABLE',
          message: lastError?.message,
          certificate: 'emissary/istio',
          since: lastError?.firstTime,
          lastTime: lastError?.time,
          nextAttemptTime,
        },
      ],
    });
    health.now = { ready: true, problems: [] };
    const ready = await fetch(`${url}/readyz`);
    assert.equal(ready.status, 200);
    assert.equal(((await ready.json()) as { problems: unknown[] }).problems.length, 1);
  }));

test('readiness lists the own problems and the first 20 others, in order, and says where the rest is', () =>
  withServer(async ({ url, board, health }) => {
    const names = Array.from({ length: 1_000 }, (_, at) => `gateway-${1_000 + at}`);
    for (const name of names.toReversed()) board.put(name, badStatus(NOW));
    const own = { code: 'ERR_ADAPTER_LOAD', message: 'adapter x.mjs: no such file or directory' };
    health.now = { ready: true, problems: [own] };
    const ready = await fetch(`${url}/readyz`);
    assert.equal(ready.status, 200);
    const body = (await ready.json()) as {
      problems: { certificate?: string }[];
      more?: { count: number; see: string };
    };
    assert.deepEqual(
      body.problems.map(({ certificate }) => certificate),
      [undefined, ...names.slice(0, 20).map((name) => `emissary/${name}`)],
    );
    assert.deepEqual(body.more, { count: 980, see: '/api/status' });
    const all = (await (await fetch(`${url}${body.more.see}`)).json()) as { problems: unknown[] };
    assert.equal(all.problems.length, 1_001);
  }));

test('the status API returns every certificate', () =>
  withServer(async ({ url, board }) => {
    board.put('istio', goodStatus(NOW));
    const body = (await (await fetch(`${url}/api/status`)).json()) as Record<string, unknown>;
    assert.equal(body.time, new Date(NOW).toISOString());
    assert.equal(body.version, '1.2.3');
    assert.deepEqual(body.certificates, [{ namespace: 'emissary', name: 'istio', status: goodStatus(NOW) }]);
  }));

test('metrics come in the text format', () =>
  withServer(async ({ url }) => {
    const response = await fetch(`${url}/metrics`);
    assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
    assert.equal(await response.text(), '# HELP x y\n');
  }));

test('nothing can be changed: any method except GET and HEAD is refused on every route', () =>
  withServer(async ({ url }) => {
    for (const path of ['/', '/healthz', '/readyz', '/metrics', '/api/status', '/events', '/page.css', '/page.js']) {
      for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
        const response = await fetch(`${url}${path}`, { method });
        assert.equal(response.status, 405, `${method} ${path}`);
        assert.equal(response.headers.get('allow'), 'GET, HEAD');
      }
      const head = await fetch(`${url}${path}`, { method: 'HEAD' });
      assert.equal(head.status, 200, path);
      assert.equal(await head.text(), '');
    }
  }));

test('every answer has a policy that allows nothing inline and nothing from other origins', () =>
  withServer(async ({ url }) => {
    for (const path of ['/', '/nowhere', '/metrics', '/api/status']) {
      const { headers } = await fetch(`${url}${path}`);
      const policy = headers.get('content-security-policy') ?? '';
      assert.match(policy, /^default-src 'none'; /);
      assert.doesNotMatch(policy, /unsafe|https?:|\*/);
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
      assert.equal(headers.get('cache-control'), 'no-store');
    }
  }));

test('an unknown path is 404 and lists the known ones; odd request targets do no harm', () =>
  withServer(async ({ url }) => {
    const response = await fetch(`${url}/nowhere`);
    assert.equal(response.status, 404);
    assert.match(await response.text(), /\/api\/status/);
    for (const path of ['//', '/../etc/passwd', '/%2e%2e/', 'http://other/', '*', '/?x=/metrics']) {
      const status = await new Promise((resolve, reject) => {
        const request = httpRequest(url, { path }, (answer) => resolve(answer.resume().statusCode));
        request.on('error', reject).end();
      });
      assert.ok(status === 404 || status === 200, `${path}: ${status}`);
    }
  }));

test('a stream of events starts with everything, then sends changes and removals', () =>
  withServer(async ({ url, board, clock }) => {
    const stop = new AbortController();
    board.put('a', goodStatus(NOW));
    board.put('b', goodStatus(NOW));
    const stream = events(`${url}/events`, stop.signal);
    const names = (event: { certificates: { name: string }[] }) => event.certificates.map(({ name }) => name);
    assert.deepEqual(names(await next(stream, clock)), ['a', 'b']);
    board.put('b', goodStatus(NOW, { rotations: 4 }));
    assert.deepEqual(names(await next(stream, clock)), ['b']);
    board.remove('a');
    assert.deepEqual(await next(stream, clock), { certificates: [], removed: ['emissary/a'] });
    stop.abort();
  }));

test('the page gets its rows as markup, and the summary with them', () =>
  withServer(async ({ url, board, clock }) => {
    const stop = new AbortController();
    const stream = events(`${url}/events?view=page`, stop.signal);
    assert.deepEqual((await next(stream, clock)).rows, []);
    board.put('a', badStatus(NOW));
    const { rows, summary } = await next(stream, clock);
    assert.equal(rows[0][0], 'emissary/a');
    assert.match(rows[0][1], /^<li data-key="emissary\/a" data-rank="0" .*class="bad">/);
    assert.match(summary, /1 not ready/);
    stop.abort();
  }));

test('a client that goes away leaves nothing behind, and a stop ends every stream', () =>
  withServer(async ({ url, board, clock }) => {
    const stop = new AbortController();
    const stream = events(`${url}/events`, stop.signal);
    await next(stream, clock);
    assert.equal(board.subscribers, 1);
    stop.abort();
    while (board.subscribers > 0) await new Promise((resolve) => setImmediate(resolve));
    const second = events(`${url}/events`, new AbortController().signal);
    await next(second, clock);
  }));

test('streams beyond the limit are refused with 503', () =>
  withServer(async ({ url }) => {
    const stop = new AbortController();
    const open = await Promise.all(Array.from({ length: 32 }, () => fetch(`${url}/events`, { signal: stop.signal })));
    assert.ok(open.every(({ status }) => status === 200));
    assert.equal((await fetch(`${url}/events`)).status, 503);
    stop.abort();
  }));
