import assert from 'node:assert/strict';
import { it } from 'node:test';
import { requireShallowYaml } from './input.ts';

it('YAML that is nested without end is refused before it is parsed', () => {
  for (const text of [
    '['.repeat(200_000),
    '- '.repeat(200_000),
    `a: ${'{b: '.repeat(100_000)}`,
    `x:\n  ${'? '.repeat(9_000)}`,
  ]) {
    assert.throws(() => requireShallowYaml(text), RangeError);
  }
  for (const text of [
    '',
    '[]'.repeat(100_000),
    ']'.repeat(1_000),
    'a:\n  - b: {c: [d]}\n',
    '- a\n'.repeat(10_000),
    '- '.repeat(20),
  ]) {
    requireShallowYaml(text);
  }
});
