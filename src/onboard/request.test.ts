import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isWorse, type OnboardAnswer } from './request.ts';

const of = (answer: number | string): OnboardAnswer =>
  typeof answer === 'number' ? { status: answer } : answer === 'open' ? { open: true } : { failure: answer };

for (const [before, worse, notWorse] of [
  [[200], [400, 401, 403, 404, 405, 429, 500, 502, 503, 504, 'reset'], [200, 204, 301, 302]],
  [[302], [401, 404, 503], [200, 302]],
  [[404], [401, 403, 405, 500, 503, 'reset'], [200, 302, 404]],
  [[401], [403, 404, 500], [200, 401]],
  [[500], [501, 503, 'reset'], [200, 403, 500]],
  [[503], [502, 503, 'reset'], [200, 403, 404, 500]],
  [['reset'], [503, 'reset'], [200, 403, 500]],
  [
    [200, 404, 200],
    [403, 500],
    [200, 404],
  ],
  [['open'], ['reset'], ['open']],
] as const) {
  it(`after ${before.join(', ')}, ${worse.join(', ')} are worse, and ${notWorse.join(', ')} are not`, () => {
    const judged = (answers: readonly (number | string)[]) => answers.filter((one) => isWorse(of(one), before.map(of)));
    assert.deepEqual([judged(worse), judged(notWorse)], [[...worse], []]);
  });
}
