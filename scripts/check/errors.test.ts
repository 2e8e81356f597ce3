import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { filesBelow, ROOT } from '../tree.ts';

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

const used = new Set(
  filesBelow(ROOT, 'src', 'adapters')
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
    .flatMap((file) => [...read(file).matchAll(/'(ERR_[A-Z0-9_]+)'/g)].map(([, code = '']) => code)),
);
const [page = '', tests = ''] = read('docs/errors.md').split('## How the advice is tested');
const documented = [...page.matchAll(/^\| `(ERR_[A-Z0-9_]+)` \|/gm)].map(([, code = '']) => code);

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

/** The last table of docs/errors.md: codes, and how their advice is tested. */
const tested = tests
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => {
    const [, codes = '', test = ''] = line.split('|');
    return { codes: [...codes.matchAll(/`(ERR_[A-Z0-9_]+)`/g)].map(([, code = '']) => code), test };
  });

test('docs/errors.md says of each code how its advice is tested, once', () => {
  assert.deepEqual(tested.flatMap(({ codes }) => codes).sort(), [...documented].sort());
});

test('a file that is named as the test of an advice has each code of its row', () => {
  for (const { codes, test } of tested) {
    const [, file] = /^ `([^`]+\.test\.ts)`/.exec(test) ?? [];
    if (file === undefined) continue;
    const cases = file.endsWith('advice-agent.test.ts') ? read('test/peers/parts/advice-cases.ts') : '';
    const text = read(file) + cases;
    assert.deepEqual(
      codes.filter((code) => !text.includes(code)),
      [],
      file,
    );
  }
});
