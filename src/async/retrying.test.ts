import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { followed, type RetryPolicy, retrying } from './retrying.ts';

/** Waits a second for each failure in a row, and records what happens. */
function recorded() {
  const clock = new FakeClock();
  const log: string[] = [];
  const retry: RetryPolicy = {
    clock,
    delay: (failures) => failures * 1000,
    failed: (error, failures) => log.push(`${failures}: ${error.message}`),
    recovered: () => log.push('recovered'),
  };
  return { clock, log, retry };
}

test('an attempt is repeated after longer and longer waits, until it returns', async () => {
  const { clock, log, retry } = recorded();
  const outcomes = ['first', 'second', undefined];
  const attempt = async () => {
    const failure = outcomes.shift();
    if (failure !== undefined) throw failure;
    return 'done';
  };
  const result = retrying(attempt, retry, new AbortController().signal);
  await settle();
  await clock.advance(999);
  assert.deepEqual(log, ['1: first']);
  await clock.advance(1);
  await settle();
  assert.deepEqual(log, ['1: first', '2: second']);
  await clock.advance(2000);
  await settle();
  assert.equal(await result, 'done');
  assert.deepEqual(log, ['1: first', '2: second', 'recovered']);
});

test('the abort of the signal ends the attempt and the wait with its reason, and is no failure', async () => {
  for (const busy of [true, false]) {
    const { clock, log, retry } = recorded();
    const stop = new AbortController();
    const attempt = () =>
      new Promise<never>((_, reject) => {
        if (busy) stop.signal.addEventListener('abort', () => reject(new Error('cut')), { once: true });
        else reject(new Error('refused'));
      });
    const result = assert.rejects(retrying(attempt, retry, stop.signal), /enough/);
    await settle();
    stop.abort(new Error('enough'));
    await result;
    assert.deepEqual(log, busy ? [] : ['1: refused']);
    assert.equal(clock.sleeping, 0);
    await assert.rejects(retrying(attempt, retry, stop.signal), /enough/);
  }
});

test('a stream is opened again after its end and its failure, and a value ends the series of failures', async () => {
  const { clock, log, retry } = recorded();
  const stop = new AbortController();
  let opened = 0;
  async function* open() {
    opened += 1;
    if (opened === 1) throw new Error('refused');
    yield opened;
    if (opened > 2) await clock.sleep(1_000_000, stop.signal);
  }
  const seen: number[] = [];
  const stream = { open, each: (value: number) => seen.push(value), ended: () => new Error('ended') };
  const end = followed(stream, retry, stop.signal);
  await settle();
  await clock.advance(1000);
  await settle();
  assert.deepEqual([seen, log], [[2], ['1: refused', 'recovered', '1: ended']]);
  await clock.advance(1000);
  await settle();
  assert.deepEqual(seen, [2, 3]);
  stop.abort();
  await end;
  assert.deepEqual(log.slice(3), ['recovered']);
});
