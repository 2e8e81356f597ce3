import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttemptBudget, attemptsPerHour } from './retry.ts';

const hour = 3_600_000;

test('an hour’s budget may be spent at once, then one at a time', () => {
  const budget = new AttemptBudget();
  for (let spent = 0; spent < 30; spent++) assert.equal(budget.take(0, 30), 0);
  assert.equal(budget.take(0, 30), hour / 30);
  assert.equal(budget.take(hour / 30 - 1, 30) > 0, true);
  assert.equal(budget.take(hour / 30, 30), 0);
  assert.equal(budget.take(hour / 30, 30), hour / 30);
});

test('the returned wait is long enough, and a clock that stands still or goes back frees nothing', () => {
  const budget = new AttemptBudget();
  let now = 1000;
  for (let spent = 0; spent < 7; spent++) assert.equal(budget.take(now, 7), 0);
  for (let round = 0; round < 20; round++) {
    const wait = budget.take(now, 7);
    assert.ok(wait > 0);
    assert.ok(budget.take(now - 500, 7) > 0);
    now += wait + 500;
    assert.equal(budget.take(now, 7), 0);
  }
});

test('a CA that issues leaves with almost no lifetime is asked only as often as its leaves need (cert-manager issue 7741)', () => {
  assert.equal(attemptsPerHour(24 * hour), 30);
  assert.equal(attemptsPerHour(hour), 30);
  assert.equal(attemptsPerHour(Number.POSITIVE_INFINITY), 30);
  assert.equal(attemptsPerHour(60_000), 600);
  assert.equal(attemptsPerHour(0), 21_600);
});
