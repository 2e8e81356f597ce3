import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LONG, longestFirst } from './test-order.ts';
import { ROOT } from './tree.ts';

test('the slowest files come first, and exist', () => {
  assert.deepEqual(
    LONG.filter((file) => !existsSync(join(ROOT, file))),
    [],
  );
  const [first = '', second = ''] = LONG;
  assert.deepEqual(longestFirst(['a.test.ts', second, 'b.test.ts', first]), [first, second, 'a.test.ts', 'b.test.ts']);
});
