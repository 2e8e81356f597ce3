import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { settle } from '../../test/support/fake-clock.ts';
import { following, LatestValue, type ReportStale } from './latest-value.ts';
import { sharing } from './sharing.ts';

describe('a stream that is read once for all who follow it', () => {
  it('gives each the newest value first, then newer ones, and none after its end', async () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ who: fc.nat(3), act: fc.constantFrom('next', 'abort', 'return') }),
        fc.constant({ who: 0, act: 'push' as const }),
      ),
      { maxLength: 60 },
    );
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        const world = new World();
        const followers = [0, 1, 2, 3].map(() => world.follower());
        for (const { who, act } of all) {
          const follower = followers[who];
          // Like `break` in a loop: nobody returns while it waits for a value.
          if (act === 'return' && follower?.waiting) continue;
          if (act === 'push') world.push();
          else if (act === 'next') follower?.ask();
          else if (act === 'abort') follower?.abort.abort(new Error('enough'));
          else await follower?.values.return(undefined);
          if (follower && (act === 'abort' || act === 'return')) follower.over = true;
          await settle();
          const reading = followers.some(({ begun, over }) => begun && !over);
          assert.equal(world.open, reading ? 1 : 0, 'one reader while somebody follows, none else');
          for (const one of followers) {
            assert.ok(
              one.seen.every((value, at) => at === 0 || value > (one.seen[at - 1] ?? 0)),
              'each is newer than the one before',
            );
            if (one.waiting) assert.equal(one.seen.at(-1), world.value, 'who waits has the newest');
            if (one.over) assert.equal(one.waiting, false, 'who has ended waits for nothing');
          }
        }
        for (const { abort } of followers) abort.abort();
        await settle();
        assert.equal(world.open, 0);
        assert.equal(world.opened, world.closed);
      }),
      { numRuns: 60 },
    );
  });

  it('opens nothing before the first is asked, and leaves no listener', async () => {
    const world = new World();
    const follower = world.follower();
    await settle();
    assert.equal(world.opened, 0);
    follower.ask();
    await settle();
    assert.deepEqual(follower.seen, [0]);
    await follower.values.return(undefined);
    assert.equal(getEventListeners(follower.abort.signal, 'abort').length, 0);
  });

  it('ends at once for a signal that is aborted already', async () => {
    const world = new World();
    const follower = world.follower();
    follower.abort.abort();
    assert.equal((await follower.values.next()).done, true);
    assert.equal(world.opened, 0);
  });

  it('fails for each with what it failed with, once, and is opened again by who follows then', async () => {
    const world = new World();
    const [first, slow] = [world.follower(), world.follower()];
    first.ask();
    slow.ask();
    await settle();
    first.ask();
    const error = new Error('cut');
    world.fail(error);
    await settle();
    assert.deepEqual(first.errors, [error]);
    const next = world.follower();
    next.ask();
    await settle();
    assert.deepEqual([next.seen, world.opened], [[0], 2]);
    slow.ask();
    await settle();
    assert.deepEqual(slow.errors, [error]);
    assert.equal((await slow.values.next()).done, true);
  });

  it('gives the last value before the end', async () => {
    const share = sharing();
    const abort = new AbortController();
    const values = following(
      () =>
        share(
          'k',
          () =>
            new LatestValue(async function* () {
              yield 'a';
              yield 'b';
            }),
        ),
      () => {},
      abort.signal,
    );
    const seen = [];
    for await (const value of values) {
      seen.push(value);
      await settle();
    }
    assert.deepEqual(seen, ['a', 'b']);
  });

  it('reports to each who follows, and to who follows later what holds still', async () => {
    const world = new World();
    const [first, second] = [world.follower(), world.follower()];
    first.ask();
    await settle();
    world.report(new Error('one'));
    second.ask();
    await settle();
    world.report(new Error('two'));
    await first.values.return(undefined);
    world.report(undefined);
    const third = world.follower();
    third.ask();
    await settle();
    world.report(new Error('three'));
    assert.deepEqual(first.reports, ['one', 'two']);
    assert.deepEqual(second.reports, ['one', 'two', 'none', 'three']);
    assert.deepEqual(third.reports, ['three']);
  });

  it('tells each of a stream that cannot even be opened', async () => {
    const share = sharing();
    const refused = () =>
      new LatestValue<number>(() => {
        throw new Error('no such place');
      });
    const { signal } = new AbortController();
    const values = [1, 2].map(() =>
      following(
        () => share('one', refused),
        () => {},
        signal,
      ),
    );
    for (const each of values) await assert.rejects(each.next(), /no such place/);
  });

  it('tells a failure to begin, such as a refusal, to who asked', async () => {
    const refusal = new Error('not permitted');
    const refused = () => {
      throw refusal;
    };
    const values = following(refused, () => {}, new AbortController().signal);
    await assert.rejects(values.next(), refusal);
    assert.equal((await values.next()).done, true);
  });
});

/** A stream of numbers that goes on until it is closed or fails. */
class World {
  readonly #share = sharing();
  value = 0;
  open = 0;
  opened = 0;
  closed = 0;
  report: ReportStale = () => {};
  #failure: { readonly error: Error } | undefined;
  #wake = () => {};

  push(): void {
    this.value += 1;
    this.#wake();
  }

  fail(error: Error): void {
    this.#failure = { error };
    this.#wake();
  }

  follower() {
    const abort = new AbortController();
    const reports: string[] = [];
    const values = following(
      () => this.#share('numbers', () => new LatestValue((signal, report) => this.#read(signal, report))),
      (error) => reports.push(error?.message ?? 'none'),
      abort.signal,
    );
    const state = {
      ...{ abort, values, reports },
      seen: [] as number[],
      errors: [] as unknown[],
      ...{ begun: false, over: false, waiting: false },
      /** Asks for one value, unless it waits for one already. */
      ask: () => {
        if (state.waiting) return;
        state.begun ||= !state.over;
        state.waiting = true;
        values
          .next()
          .then(
            ({ done, value }) => !done && state.seen.push(value),
            (error) => state.errors.push(error),
          )
          .finally(() => {
            state.waiting = false;
          });
      },
    };
    return state;
  }

  async *#read(signal: AbortSignal, report: ReportStale): AsyncGenerator<number> {
    this.report = report;
    this.open += 1;
    this.opened += 1;
    let yielded: number | undefined;
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    try {
      while (!signal.aborted) {
        const failure = this.#failure;
        this.#failure = undefined;
        if (failure) throw failure.error;
        if (yielded === this.value) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        } else {
          yielded = this.value;
          yield yielded;
        }
      }
    } finally {
      this.open -= 1;
      this.closed += 1;
    }
  }
}
