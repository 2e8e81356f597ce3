import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testGroups } from './test-groups.ts';
import { longestFirst } from './test-order.ts';
import { filesBelow, ROOT } from './tree.ts';

test('each test file runs in one process, alone when it is long or affects the whole process', () => {
  const files = filesBelow(ROOT, 'src', 'adapters', 'sandbox', 'scripts', 'test').filter((file) =>
    file.endsWith('.test.ts'),
  );
  const groups = testGroups(longestFirst(files));
  assert.deepEqual(groups.flat().sort(), files.toSorted());
  for (const alone of [
    'test/e2e/agent.test.ts',
    'test/e2e/retained.test.ts',
    'src/async/clock.test.ts',
    'src/cli/status.test.ts',
    'test/peers/ha.test.ts',
  ]) {
    assert.deepEqual(
      groups.filter((group) => group.includes(alone)),
      [[alone]],
    );
  }
  assert.ok(groups.length < files.length / 2 + 60);
});
