import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { durationSchema, formatDuration, parseDuration } from './schema.ts';

test('durations read as Go writes them', () => {
  assert.equal(parseDuration('8h'), 28_800_000);
  assert.equal(parseDuration('1h30m'), 5_400_000);
  assert.equal(parseDuration('1.5s'), 1500);
  assert.equal(parseDuration('500ms'), 500);
  assert.equal(parseDuration('1h0m0s'), 3_600_000);
  assert.equal(parseDuration('2000us'), 2);
  assert.equal(parseDuration('2000µs'), 2);
  assert.equal(parseDuration('0'), 0);
  assert.equal(parseDuration('0s'), 0);
});

test('what is not a duration is refused with an example of one', () => {
  for (const text of ['', '8', '8 h', '-8h', '8d', 'h', '1h-30m', '1e3s', ' 8h', '8h\n', '.5s']) {
    assert.throws(() => parseDuration(text), { name: 'RangeError', message: /expected a duration such as "8h"/ }, text);
  }
  assert.throws(() => parseDuration('99999999999999h'), /too long/);
});

test('formatting is short and parses back to the same value', () => {
  assert.equal(formatDuration(5_400_000), '1h30m');
  assert.equal(formatDuration(28_800_000), '8h');
  assert.equal(formatDuration(0), '0s');
  assert.equal(formatDuration(61_001), '1m1s1ms');
  fc.assert(
    fc.property(fc.nat({ max: 1e12 }), (ms) => {
      assert.equal(parseDuration(formatDuration(ms)), ms);
    }),
  );
});

test('a schema yields milliseconds and names its bounds', () => {
  const schema = durationSchema({ min: '1m', max: '24h' });
  assert.equal(schema.parse('2m'), 120_000);
  assert.equal(schema.safeParse('30s').error?.issues[0]?.message, 'must be at least 1m');
  assert.equal(schema.safeParse('25h').error?.issues[0]?.message, 'must be at most 24h');
  assert.match(schema.safeParse(5).error?.issues[0]?.message ?? '', /expected a duration/);
  assert.match(schema.safeParse('5 minutes').error?.issues[0]?.message ?? '', /expected a duration/);
  assert.equal(durationSchema().safeParse('99999999999999h').error?.issues[0]?.message, 'is too long');
});
