import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { renewAt } from '../core/schedule.ts';
import type { Source } from '../mesh/adapter.ts';
import type { Identity } from '../mesh/identity.ts';
import { identities } from './identities.ts';

const HOUR = 3_600_000;
const POLICY = {
  retryDelay: () => 1000,
  rootsRetryDelay: () => 1000,
  succeeded: () => {},
  admit: () => 0,
  refuse: async () => undefined,
  rootsSpreadMs: 0,
};

/** How often a source that pushes only one leaf was opened, and what was reported, at shares of the leaf's life. */
async function watched(overdue: number | undefined, shares: readonly number[]): Promise<[number, string[]][]> {
  const clock = new FakeClock();
  const host = new RecordingHost(clock);
  const identity = SandboxCa.root({ clock }).identity({
    uris: ['spiffe://td/x'],
    lifetimeMs: HOUR,
    notBeforeSkewMs: 0,
  });
  let opened = 0;
  const source: Source = {
    overdue,
    async *watch(signal) {
      opened += 1;
      yield identity;
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    },
    async [Symbol.asyncDispose]() {},
  };
  const policy = { ...POLICY, renewAt: (leaf: Parameters<typeof renewAt>[0]) => renewAt(leaf) };
  const stop = new AbortController();
  const pump = (async () => {
    for await (const _ of identities(source, host, { policy }, stop.signal));
  })();
  const seen: [number, string[]][] = [];
  let at = 0;
  for (const share of shares) {
    await clock.advance((share - at) * HOUR);
    at = share;
    await settle();
    seen.push([opened, host.reports.map((error) => (error as { code?: string }).code ?? '')]);
  }
  stop.abort(new Error('the test ended'));
  await pump;
  return seen;
}

test('a source that pushes nothing by our renewal time is reopened, and that is reported', async () => {
  assert.deepEqual(await watched(undefined, [0.55, 0.7]), [
    [1, []],
    [2, ['ERR_MESH_SILENT']],
  ]);
});

test('a mesh that renews later than our schedule is waited for', async () => {
  assert.deepEqual(await watched(0.92, [0.7, 0.9, 0.93]), [
    [1, []],
    [1, []],
    [2, ['ERR_MESH_SILENT']],
  ]);
});

test('a mesh that takes some seconds to answer is heard after the leaf has expired', async () => {
  const clock = new FakeClock();
  const host = new RecordingHost(clock);
  const ca = SandboxCa.root({ clock });
  const issue = () => ca.identity({ uris: ['spiffe://td/x'], lifetimeMs: HOUR, notBeforeSkewMs: 0 });
  const current = issue();
  const source: Source = {
    async *watch(signal) {
      await clock.sleep(5_000, signal);
      yield issue();
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    },
    async [Symbol.asyncDispose]() {},
  };
  const policy = { ...POLICY, renewAt: (leaf: Parameters<typeof renewAt>[0]) => renewAt(leaf) };
  await clock.advance(HOUR + 1);
  const stop = new AbortController();
  const seen: Identity[] = [];
  const pump = (async () => {
    for await (const identity of identities(source, host, { policy, current }, stop.signal)) seen.push(identity);
  })();
  for (let second = 0; second < 30 && seen.length < 2; second++) {
    await settle();
    await clock.advance(1000);
  }
  stop.abort(new Error('the test ended'));
  await pump;
  assert.equal(seen.length, 2);
  assert.equal(host.reports.length, 3, 'given up after 1, 2 and 4 s, not after 8 s');
});
