import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { filesBelow, ROOT } from '../tree.ts';

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

const used = new Set(
  filesBelow(ROOT, 'src', 'adapters')
    .filter((file) => file.endsWith('.ts') && !/\.(test|fixture)\.ts$/.test(file) && !file.includes('/sandbox/'))
    .flatMap((file) => [...read(file).matchAll(/'(ERR_[A-Z0-9_]+)'/g)].map(([, code = '']) => code)),
);
const documented = [...read('docs/errors.md').matchAll(/^\| `(ERR_[A-Z0-9_]+)` \|/gm)].map(([, code = '']) => code);

test('every code that can be raised is explained in docs/errors.md', () => {
  assert.ok(used.size > 50);
  assert.deepEqual([...used].filter((code) => !documented.includes(code)).sort(), []);
});

test('docs/errors.md explains no code that cannot be raised, and none twice', () => {
  assert.deepEqual(
    documented.filter((code) => !used.has(code)),
    [],
  );
  assert.equal(new Set(documented).size, documented.length);
});
