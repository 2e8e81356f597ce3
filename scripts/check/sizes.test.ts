import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { trackedBelow, untracked } from '../tree.ts';
import { knipConfig } from './configs.ts';
import { seededTree } from './seeded-tree.ts';
import { sizes } from './sizes.ts';
import { structureFindings } from './structure.ts';

test('the sizes count lines, files, small files and exports of what ships', () => {
  const root = seededTree({
    'src/x/a.ts': `export interface A {}\nexport const b = 1,\n  c = 2;\nconst own = 3;\n${'\n'.repeat(40)}`,
    'src/x/b.ts': "import { type A, b as other } from './a.ts';\nexport class B {}\n",
    'src/x/page.css': 'a {}\n',
    'src/x/b.test.ts': "import { c } from './a.ts';\n",
    'src/x/gen/g.ts': 'export const g = 1;\n',
    'adapters/y/y.ts':
      "export type { A } from '../../src/x/a.ts';\nexport const y = () => import('../../src/x/b.ts'); // B\n",
    'sandbox/z.ts': 'export const z = 1;\n',
  });
  assert.deepEqual(sizes(root), [
    '    49  lines that ship',
    '     4  files that ship',
    '     3  files under 40 lines',
    '     5  exports',
    // b and B; two files import A, a test alone c, and nothing y.
    '     2  exports that a single file imports',
  ]);
});

test('files that git does not track are neither counted nor judged', () => {
  const root = seededTree({
    'src/x/a.ts': 'export interface A {}\n',
    'adapters/y.ts': '',
    'sandbox/z.ts': '',
    'knip.json': '{"entry": ["a"], "project": ["b"]}',
  });
  const git = (...args: string[]) => execFileSync('git', ['-C', root, ...args]);
  git('init', '--quiet');
  git('add', '.');
  writeFileSync(join(root, 'src/x/utils.ts'), 'export interface A {}\n');
  rmSync(join(root, 'sandbox/z.ts'));
  assert.deepEqual(untracked(root), ['src/x/utils.ts']);
  assert.deepEqual(trackedBelow(root, 'src', 'sandbox'), ['src/x/a.ts']);
  assert.deepEqual(structureFindings(root), []);
  const { entry, project } = JSON.parse(readFileSync(knipConfig(root, 'knip.json'), 'utf8'));
  assert.deepEqual(
    [entry, project],
    [
      ['a', '!src/x/utils.ts'],
      ['b', '!src/x/utils.ts'],
    ],
  );
});
