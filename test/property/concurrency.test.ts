import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  answered,
  type Concurrency,
  LEAST,
  LONGEST_HOLD_MS,
  type ServerAnswer,
  startingConcurrency,
} from '../../src/core/concurrency.ts';

const MOST = 32;

const answers = fc.array(
  fc.record({
    tookMs: fc.double({ min: 0, max: 60_000, noNaN: true }),
    status: fc.constantFrom(0, 200, 201, 409, 429, 500, 503),
    retryAfterMs: fc.option(fc.double({ min: 0, max: 1e9, noNaN: true }), { nil: undefined }),
    underWay: fc.integer({ min: 1, max: MOST }),
    gapMs: fc.integer({ min: 0, max: 5_000 }),
  }),
  { maxLength: 400 },
);

/** Answers one after the other, each sent `tookMs` before it came. */
function after(
  all: typeof answers extends fc.Arbitrary<infer T> ? T : never,
  report = (_: Concurrency, __: ServerAnswer) => {},
) {
  let state = startingConcurrency(MOST);
  let now = 0;
  for (const { tookMs, gapMs, ...rest } of all) {
    now += gapMs;
    const answer = { ...rest, now, sentAt: now - tookMs };
    state = answered(state, answer, MOST);
    report(state, answer);
  }
  return { state, now };
}

/** Rounds of answers that all take as long, with all of the limit in use. */
function rounds(from: Concurrency, now: number, tookMs: number, count: number): Concurrency {
  let state = from;
  for (let n = 0; n < count * MOST; n++) {
    const at = now + n;
    state = answered(state, { sentAt: at - tookMs, now: at, status: 200, underWay: Math.floor(state.limit) }, MOST);
  }
  return state;
}

describe('the limit on concurrent writes', () => {
  it('stays between its bounds, and no hold is longer than the longest, whatever the answers', () => {
    fc.assert(
      fc.property(answers, (all) => {
        after(all, ({ limit, heldUntil }, { now }) => {
          assert.ok(limit >= LEAST && limit <= MOST, `${limit}`);
          assert.ok(heldUntil <= now + LONGEST_HOLD_MS);
        });
      }),
    );
  });

  it('returns to its maximum once the server answers evenly, whatever came before', () => {
    fc.assert(
      fc.property(answers, fc.integer({ min: 1, max: 500 }), (all, tookMs) => {
        const { state, now } = after(all);
        assert.equal(rounds(state, now + 120_000, tookMs, 1_000).limit, MOST);
      }),
    );
  });

  it('is halved by a busy server, once for all writes in flight, and held for as long as it says', () => {
    let state = startingConcurrency(MOST);
    for (let n = 0; n < 16; n++)
      state = answered(state, { sentAt: 100, now: 110 + n, status: 429, retryAfterMs: 3_000, underWay: 16 }, MOST);
    assert.equal(state.limit, 8);
    assert.equal(state.heldUntil, 3_125);
    state = answered(state, { sentAt: 3_200, now: 3_201, status: 429, underWay: 1 }, MOST);
    assert.equal(state.limit, 4);
    assert.equal(state.heldUntil, 4_201);
  });

  it('falls when answers take far longer than before, and not for less', () => {
    const calm = rounds(startingConcurrency(MOST), 1_000, 5, 50);
    assert.equal(calm.limit, MOST);
    assert.equal(rounds(calm, 10_000, 40, 3).limit, MOST);
    assert.ok(rounds(calm, 10_000, 2_000, 3).limit < 20);
  });

  it('does not grow while it is not used', () => {
    let state = startingConcurrency(MOST);
    for (let n = 0; n < 500; n++) state = answered(state, { sentAt: n, now: n + 5, status: 200, underWay: 1 }, MOST);
    assert.equal(state.limit, 16);
  });
});
