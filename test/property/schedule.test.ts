import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { AttemptBudget, retryDelay } from '../../src/core/retry.ts';
import { emergencyAt, renewAt } from '../../src/core/schedule.ts';

const hour = 3_600_000;
const fingerprint = (seed: unknown): string => createHash('sha256').update(String(seed)).digest('hex');
const lives = fc
  .record({
    notBefore: fc.integer({ min: 0, max: 2e12 }),
    life: fc.integer({ min: 1000, max: 1000 * hour }),
    seed: fc.nat(),
  })
  .map(({ notBefore, life, seed }) => ({ notBefore, notAfter: notBefore + life, fingerprint: fingerprint(seed) }));

test('a leaf is due at one moment within its band, before its emergency, and always at the same one', () => {
  fc.assert(
    fc.property(
      lives,
      fc.double({ min: 0.1, max: 0.8, noNaN: true }),
      fc.double({ min: 0, max: 0.1, noNaN: true }),
      (leaf, at, jitter) => {
        const due = renewAt(leaf, at, jitter);
        const life = leaf.notAfter - leaf.notBefore;
        assert.equal(renewAt({ ...leaf }, at, jitter), due);
        assert.ok(due >= leaf.notBefore + life * at - 1 && due <= leaf.notBefore + life * (at + jitter) + 1);
        assert.ok(due <= emergencyAt(leaf) + 1 && emergencyAt(leaf) <= leaf.notAfter);
      },
    ),
  );
});

test('a thousand leaves of one moment are due evenly over the band and not bunched at its edge', () => {
  const buckets = Array.from({ length: 10 }, () => 0);
  for (let seed = 0; seed < 1000; seed++) {
    const due = renewAt({ notBefore: 0, notAfter: hour, fingerprint: fingerprint(seed) });
    const bucket = Math.floor(((due / hour - 0.6) / 0.06) * 10);
    buckets[bucket] = (buckets[bucket] ?? 0) + 1;
  }
  assert.equal(buckets.length, 10);
  // 100 in each, standard deviation 9.5: five of them either way. The seeds are fixed, so this never varies.
  for (const count of buckets) assert.ok(count > 52 && count < 148, buckets.join(' '));
});

test('reading the schedule often does not bring a renewal forward, as a new draw each time would', () => {
  fc.assert(
    fc.property(lives, fc.integer({ min: 2, max: 50 }), (leaf, looks) => {
      const life = leaf.notAfter - leaf.notBefore;
      const due = renewAt(leaf);
      const firstDue = Array.from({ length: looks }, (_, at) => leaf.notBefore + (life * at) / looks).find(
        (now) => now >= renewAt(leaf),
      );
      assert.ok(firstDue === undefined || firstDue >= due);
    }),
  );
});

test('a wait is below every ceiling and never a spin', () => {
  const random = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10_000 }),
      random,
      fc.option(fc.integer({ min: -hour, max: 100 * hour }), { nil: undefined }),
      (attempt, draw, remainingMs) => {
        const delay = retryDelay(attempt, () => draw, { remainingMs });
        assert.ok(delay >= 100 && delay <= 300_000, String(delay));
        assert.ok(delay <= 1000 * 2 ** Math.min(attempt, 30));
        if (remainingMs !== undefined && remainingMs >= 1000)
          assert.ok(delay <= remainingMs / 10, `${delay} of ${remainingMs}`);
      },
    ),
  );
});

test('no hour has more attempts than twice its allowance: the full bucket and its refill', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 60 }),
      fc.array(fc.integer({ min: 0, max: 20 * 60_000 }), { maxLength: 300 }),
      (perHour, gaps) => {
        const budget = new AttemptBudget();
        const spent: number[] = [];
        let now = 0;
        for (const gap of gaps) {
          now += gap;
          if (budget.take(now, perHour) === 0) spent.push(now);
        }
        for (const start of spent) {
          assert.ok(spent.filter((at) => at >= start && at < start + hour).length <= 2 * perHour);
        }
      },
    ),
  );
});
