import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { TokenBucket } from '../../src/async/limits.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RetryWindow } from './errors.ts';
import { BlockingQuery, type HttpAnswer, nextLeafStep, PACE } from './http-source.ts';

const live = () => new AbortController().signal;
const HOUR = 3_600_000;
/**
 * Twice Consul's `rpc_hold_timeout`: it looks for a leader in growing pauses, the last of which begins just before the
 * 7 s.
 */
const LONGEST_HOLD_MS = 14_000;

test('a loop that spins is limited to two turns at once and one per 15 s', async () => {
  const clock = new FakeClock();
  const bucket = new TokenBucket({ clock, ...PACE });
  let turns = 0;
  void (async () => {
    for (;;) {
      await bucket.take(live());
      turns += 1;
    }
  })();
  await settle();
  assert.equal(turns, 2);
  await clock.advance(15_000);
  assert.equal(turns, 3);
  await clock.advance(60_000);
  assert.equal(turns, 7);
});

test('an idle period refills the bucket to its burst and no further', async () => {
  const clock = new FakeClock();
  const bucket = new TokenBucket({ clock, ...PACE });
  await clock.advance(HOUR);
  await bucket.take(live());
  await bucket.take(live());
  const third = bucket.take(live());
  await settle();
  assert.equal(clock.sleeping, 1);
  await clock.advance(15_000);
  await third;
});

test('waiting for a turn can be aborted', async () => {
  const bucket = new TokenBucket({ clock: new FakeClock(), ...PACE, burst: 1 });
  await bucket.take(live());
  const abort = new AbortController();
  const waiting = bucket.take(abort.signal);
  abort.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
});

test('while requests are refused, each window of 30 s has exactly one attempt', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { minLength: 3, maxLength: 30 }),
      (draws) => {
        const window = new RetryWindow();
        let now = 1000;
        for (const [at, draw] of draws.entries()) {
          now += window.next(now, () => draw);
          assert.ok(now >= 1000 + at * 30_000, `attempt ${at} at ${now}`);
          assert.ok(now <= 1000 + (at + 1) * 30_000, `attempt ${at} at ${now}`);
        }
      },
    ),
  );
});

test('after a success the next refusal starts a window of its own', () => {
  const window = new RetryWindow();
  window.next(0, () => 0.9);
  window.reset();
  assert.equal(
    window.next(40_000, () => 0.5),
    15_000,
  );
});

interface Asked {
  readonly index?: string;
  readonly wait?: string;
}

/** A server that answers the n-th request with the n-th index. */
function scripted(indexes: readonly (string | undefined | Error)[]) {
  const asked: Asked[] = [];
  const timeouts: number[] = [];
  const query = new BlockingQuery(
    async (ask): Promise<HttpAnswer> => {
      const index = indexes[asked.length];
      asked.push(ask.query);
      timeouts.push(ask.timeoutMs);
      if (index instanceof Error) throw index;
      return { body: `answer ${asked.length}`, index };
    },
    { now: () => 0, monotonic: () => asked.length * HOUR, after: () => () => {}, sleep: async () => {} },
  );
  return { asked, timeouts, query };
}

test('the first request asks for the current state, the next ones for a newer one', async () => {
  const { asked, timeouts, query } = scripted(['7', '7', '9']);
  for (const expected of ['answer 1', 'answer 2', 'answer 3']) assert.equal(await query.next(HOUR, live()), expected);
  assert.deepEqual(asked, [{}, { index: '7', wait: '240s' }, { index: '7', wait: '240s' }]);
  assert.ok((timeouts[0] ?? 0) > LONGEST_HOLD_MS, 'a server without a leader says so only after its hold');
  assert.ok((timeouts[1] ?? 0) > (240_000 * 17) / 16 + LONGEST_HOLD_MS, 'the server adds its jitter, then its hold');
  assert.ok((timeouts[1] ?? 0) < 300_000);
});

test('an index that goes backwards is forgotten', async () => {
  const { asked, query } = scripted(['900', '3', '4', '4']);
  for (let turn = 0; turn < 4; turn++) await query.next(HOUR, live());
  assert.deepEqual(
    asked.map(({ index }) => index),
    [undefined, '900', undefined, '4'],
  );
});

test('an error forgets the index', async () => {
  const { asked, query } = scripted(['5', new Error('broken'), '5', '5']);
  await query.next(HOUR, live());
  await assert.rejects(query.next(HOUR, live()), /broken/);
  await query.next(HOUR, live());
  await query.next(HOUR, live());
  assert.deepEqual(
    asked.map(({ index }) => index),
    [undefined, '5', undefined, '5'],
  );
});

test('an index of 0, of 20 digits, none or nonsense cannot cause an unnoticed loop of plain requests', async () => {
  const { asked, query } = scripted(['0', '18446744073709551615', undefined, 'x', '2', '2']);
  for (let turn = 0; turn < 6; turn++) await query.next(HOUR, live());
  assert.deepEqual(
    asked.map(({ index }) => index),
    [undefined, '1', '18446744073709551615', undefined, undefined, '2'],
  );
});

test('a wait of zero requests at once', async () => {
  const { asked, query } = scripted(['7', '7']);
  await query.next(HOUR, live());
  await query.next(0, live());
  assert.deepEqual(asked[1], {});
});

function leafStep(lifetimeMs: number, share: number) {
  const clock = new FakeClock();
  const leaf = SandboxCa.root({ clock }).identity({ uris: ['spiffe://td/x'], lifetimeMs, notBeforeSkewMs: 0 }).chain[0];
  assert.ok(leaf);
  return nextLeafStep(leaf, leaf.notBefore + lifetimeMs * share);
}

test('a young leaf is blocked on for 4 minutes at most, and never past its renewal point', () => {
  assert.deepEqual(leafStep(72 * HOUR, 0.1), { block: 240_000 });
  assert.deepEqual(leafStep(HOUR, 0.69), { block: 36_000 });
});

test('past the renewal point we request without a notification, often enough and not too often', () => {
  assert.deepEqual(leafStep(72 * HOUR, 0.75), { sleep: 240_000 });
  assert.deepEqual(leafStep(HOUR, 0.75), { sleep: 72_000 });
  assert.deepEqual(leafStep(100_000, 0.95), { sleep: 15_000 });
});

test('a leaf that an agent would renew at every request is requested only when it is due', () => {
  assert.deepEqual(leafStep(300_000, 0.1), { sleep: 180_000 });
});
