import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { systemClock } from './clock.ts';

const DAY_MS = 86_400_000;
const LONGEST_TIMER = 2 ** 31 - 1;

test('a wait longer than any timer ends when it is due, and not before', () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    let rung = 0;
    systemClock.after(60 * DAY_MS, () => rung++);
    mock.timers.tick(LONGEST_TIMER);
    mock.timers.tick(LONGEST_TIMER);
    mock.timers.tick(60 * DAY_MS - 2 * LONGEST_TIMER - 1);
    assert.equal(rung, 0);
    mock.timers.tick(1);
    assert.equal(rung, 1);
  } finally {
    mock.timers.reset();
  }
});

test('a wait can be cancelled in each of its parts, and a wait of 0 ms never ends before the call returns', () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    let rung = 0;
    const cancel = systemClock.after(60 * DAY_MS, () => rung++);
    mock.timers.tick(30 * DAY_MS);
    cancel();
    mock.timers.tick(60 * DAY_MS);
    systemClock.after(0, () => rung++);
    assert.equal(rung, 0);
    mock.timers.tick(1);
    assert.equal(rung, 1);
  } finally {
    mock.timers.reset();
  }
});
