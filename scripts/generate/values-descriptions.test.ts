import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeValues, withDescriptions } from './values-descriptions.ts';

test('a value is described by the comment above it, and an example before it is not part of it', () => {
  const values = describeValues(`# About this file.

# The mode.
mode: a

# Two
# lines.
list: []
# - an example

image:
  # The tag.
  tag: ""
`);
  assert.deepEqual(values, [
    { path: ['mode'], description: 'The mode.', default: 'a' },
    { path: ['list'], description: 'Two lines.', default: [] },
    { path: ['image', 'tag'], description: 'The tag.', default: '' },
  ]);
});

test('a value without a comment is an error that names it', () => {
  assert.throws(() => describeValues('# A.\na: 1\nb: 2\n'), /values\.yaml: b has no comment/);
});

test('a value that the schema lacks is an error that names it', () => {
  const values = [{ path: ['image', 'tag'], description: 'The tag.', default: '' }];
  const schema = { properties: { image: { properties: { tag: { type: 'string' } } } } };
  assert.deepEqual(withDescriptions(schema, values), {
    properties: { image: { properties: { tag: { type: 'string', description: 'The tag.' } } } },
  });
  assert.throws(() => withDescriptions({ properties: {} }, values), /lacks image\.tag/);
});
