import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../../scripts/tree.ts';
import { MUTANTS } from './mutants.ts';

test('the text that each mutant changes occurs exactly once in its file', () => {
  const lost = MUTANTS.filter(({ file, from }) => readFileSync(join(ROOT, file), 'utf8').split(from).length !== 2);
  assert.deepEqual(
    lost.map(({ title, file }) => `${file}: ${title}`),
    [],
  );
});
