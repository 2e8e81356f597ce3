import assert from 'node:assert/strict';
import { test } from 'node:test';
import { patternsOf, worstInput } from './patterns.ts';
import { seededTree } from './seeded-tree.ts';

test('a regular expression of more than linear time is found by an input made from its parts', () => {
  const slow = [/\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/g, /(a+)+$/, /\/+$/, /=(.+)$/, /^\s*on:\s*true\s*$/m];
  slow.push(/-----BEGIN ([^-]+)-----[\s\S]*?-----END \1-----/);
  for (const pattern of slow) assert.notEqual(worstInput(pattern), undefined, String(pattern));
});

test('one of linear time passes', () => {
  const fast = [
    /^[a-z]+$/,
    /(?<!\/)\/+$/,
    /[\w.-]+/g,
    /^(0|(\d+(\.\d+)?(ms|s|m|h))+)$/,
    /^[ \t]*on:[ \t]*true[ \t]*$/m,
  ];
  for (const pattern of fast) assert.equal(worstInput(pattern), undefined, String(pattern));
});

test('literals and constants are collected, and one that a function makes is refused', async () => {
  const root = seededTree({
    'adapters/a.ts': 'export const A = /a+/g;\n',
    'src/b.js':
      "const PART = 'b+';\nexport const B = new RegExp('^' + PART + '$', 'm');\nexport const c = (text) => new RegExp(text);\n",
    'src/b.test.ts': 'export const D = /d+/;\n',
  });
  const { patterns, problems } = await patternsOf(root);
  assert.deepEqual(
    patterns.map(({ source, flags }) => `/${source}/${flags}`),
    ['/a+/g', '/^b+$/m'],
  );
  assert.equal(problems.length, 1);
  assert.match(problems[0] ?? '', /^src\/b\.js:3: a regular expression is made in a function/);
});
