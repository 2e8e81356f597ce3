import assert from 'node:assert/strict';
import { test } from 'node:test';
import { say } from '../../test/support/io.ts';
import { GATEWAY_TITLES } from '../cluster/mesh.ts';
import { runDemo } from './run.ts';
import { DemoState } from './state.ts';
import { closing, frame } from './view.ts';

test('certificates rotate under traffic in every mesh, and no request fails', { timeout: 60_000 }, async (t) => {
  const stop = new AbortController();
  const state = await runDemo(
    {
      meshes: ['istio', 'linkerd', 'consul', 'spiffe', 'file'],
      leafLifetimeMs: 10_000,
      started: (running) => {
        running.onEvent = () => {
          if (
            running.meshes.every(
              ({ rotations, by }) => rotations > 0 && GATEWAY_TITLES.every((gateway) => by[gateway].ok > 0),
            )
          )
            stop.abort(new Error('seen enough'));
        };
      },
    },
    stop.signal,
  );
  const { standstill, ...summary } = state.summary();
  if (standstill.requests + standstill.pairs > 0) t.diagnostic(closing(state.summary()));
  const served = summary.gateways.flatMap(({ gateway, requests }) => (requests > 0 ? [gateway] : []));
  assert.deepEqual(
    { ...summary, gateways: served, rotations: 0, requests: 0, seconds: 0, each: [] },
    {
      ok: true,
      meshes: ['istio', 'linkerd', 'consul', 'spiffe', 'file'],
      rotations: 0,
      rootRotations: 0,
      requests: 0,
      failed: 0,
      gateways: ['Emissary', 'Envoy Gateway'],
      broken: 0,
      seconds: 0,
      each: [],
    },
    JSON.stringify(state.events),
  );
});

test('ended before anything rotated, it says so and fails', async () => {
  const stop = new AbortController();
  stop.abort(new Error('SIGINT'));
  const { code, stdout } = await say(['demo', '--meshes', 'consul', '--json'], { signal: stop.signal });
  assert.equal(code, 1);
  const last = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
  assert.equal(last.ok, false);
  assert.deepEqual(last.meshes, ['consul']);
});

test('where the output is not a terminal, it says what follows and how to end it', async () => {
  const stop = new AbortController();
  stop.abort(new Error('SIGINT'));
  const { stdout } = await say(['demo', '--meshes', 'consul'], { signal: stop.signal });
  assert.match(stdout, /not a terminal, so each event is a line\. Press Ctrl-C to stop, or give --for\.\n/);
});

test('one failed request makes the whole demo fail, and its cause is in the summary', () => {
  const state = new DemoState(['istio'], () => 1_000);
  state.of('istio').rotations = 3;
  state.answered('istio', 'Emissary', undefined);
  state.answered('istio', 'Envoy Gateway', undefined);
  assert.equal(state.summary().ok, true);
  state.answered('istio', 'Envoy Gateway', '503 upstream connect error');
  assert.equal(state.summary().ok, false);
  assert.match(JSON.stringify(state.summary().each), /503 upstream connect error/);
  assert.match(
    closing(state.summary()),
    /^not ok, requests failed: 3 requests, 1 failed \(Emissary 1, Envoy Gateway 2\)/,
  );
});

test('failures because the process did not run are named, and not counted as failures of the product', () => {
  const state = new DemoState(['istio'], () => 1_000);
  state.of('istio').rotations = 3;
  for (const gateway of GATEWAY_TITLES) state.answered('istio', gateway, undefined);
  state.standstill.ms = 12_345;
  state.stood(12_345, 10_000);
  state.interrupted('istio', 'Emissary', '503 socket hang up');
  state.interrupted('istio', 'Emissary', '503 socket hang up');
  state.endedUnrenewed('istio');
  assert.deepEqual(
    state.events.map(({ mesh, text }) => `${mesh}: ${text}`),
    [
      'demo: this process did not run for 12.3s; leaves live for 10s',
      'istio: request by Emissary failed, because this process did not run: 503 socket hang up',
      'istio: the published leaf ended, because this process did not run',
    ],
  );
  const summary = state.summary();
  assert.deepEqual(summary.standstill, { seconds: 12.3, requests: 2, pairs: 1 });
  assert.equal(
    closing(summary),
    'ok: 2 requests, 0 failed (Emissary 1, Envoy Gateway 1); 3 rotations and 0 root rotations in 0s; 0 broken pairs seen\n' +
      'This process did not run for 12.3s in all, so leaves ended before they could be renewed: 2 more requests failed and 1 published pair ended for this reason. They are not counted. On a busy machine, let leaves live longer (--leaf).\n',
  );
});

test('the view shows identity, life, renewal, requests and events, within the width of the terminal', () => {
  const now = Date.parse('2026-01-01T00:00:05Z');
  const state = new DemoState(['istio'], () => now);
  const istio = state.of('istio');
  istio.status = {
    mesh: 'istio',
    id: 'spiffe://cluster.local/ns/emissary/sa/emissary',
    notBefore: '2026-01-01T00:00:00Z',
    notAfter: '2026-01-01T00:00:10Z',
    renewalTime: '2026-01-01T00:00:06Z',
    roots: [],
    mappings: [],
    targets: [],
    rotations: 0,
    conditions: [],
  };
  istio.by.Emissary.ok = 7;
  istio.by['Envoy Gateway'].ok = 8;
  state.event('istio', `rotated to leaf ${'0'.repeat(100)}`);
  const lines = frame(state, now, { columns: 72, rows: 24, colours: false });
  const text = lines.join('\n');
  assert.match(text, /spiffe:\/\/cluster\.local/);
  assert.match(text, /█{12}··│·+ 5\.0s left, renews in 1\.0s/);
  assert.match(text, /Emissary 7 ok · Envoy Gateway 8 ok · 0 roots · 0 rotations/);
  assert.match(text, /rotated to leaf 0+…$/m);
  assert.match(text, /^Press Ctrl-C to stop\.$/m);
  assert.match(text, /used {2}· left {2}│ renewal is due/);
  assert.ok(
    lines.every((line) => line.length <= 72),
    text,
  );
});

test('a frame never exceeds the terminal, and events use the remaining rows', () => {
  const now = Date.parse('2026-01-01T00:00:05Z');
  const state = new DemoState(['istio', 'linkerd', 'consul'], () => now);
  for (let event = 0; event < 100; event++) state.event('istio', `event ${event} ${'x'.repeat(event)}`);
  for (const columns of [1, 20, 80, 300]) {
    for (const rows of [1, 5, 12, 16, 24, 60]) {
      const lines = frame(state, now, { columns, rows, colours: false });
      assert.ok(lines.length <= rows, `${lines.length} lines in ${rows} rows`);
      assert.ok(lines.every((one) => one.length <= columns));
    }
  }
  const events = (rows: number) =>
    frame(state, now, { columns: 300, rows, colours: false }).filter((one) => one.includes(' event ')).length;
  assert.deepEqual([events(12), events(24), events(60)], [0, 7, 43]);
});

test('a demo that ended early says why it is not ok, and counts in plain English', () => {
  const state = new DemoState(['istio'], () => 1_000);
  assert.match(state.summary().reason ?? '', /before the first request by Emissary/);
  state.answered('istio', 'Emissary', undefined);
  assert.match(state.summary().reason ?? '', /before the first request by Envoy Gateway/);
  state.answered('istio', 'Envoy Gateway', undefined);
  assert.equal(state.summary().ok, false);
  assert.match(closing(state.summary()), /^not ok, it ended before the first rotation; give --for at least/);
  state.of('istio').rotations = 1;
  assert.equal(
    closing(state.summary()),
    'ok: 2 requests, 0 failed (Emissary 1, Envoy Gateway 1); 1 rotation and 0 root rotations in 0s; 0 broken pairs seen\n',
  );
});

test('wrong flags are reported before anything starts', async () => {
  for (const argv of [
    ['--meshes', 'nomad'],
    ['--leaf', '9s'],
    ['--for', 'soon'],
  ]) {
    assert.equal((await say(['demo', ...argv])).code, 2, argv.join(' '));
  }
});
