import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nearest } from './validate.ts';

test('the nearest word is the one with the fewest edits, whatever its case', () => {
  assert.equal(nearest('secretNmae', ['caSecretName', 'secretName']), 'secretName');
  assert.equal(nearest('SECRETNAME', ['secretName']), 'secretName');
  assert.equal(nearest('isito', ['istio', 'linkerd', 'consul']), 'istio');
  assert.equal(nearest('ip', ['ap', 'zz']), 'ap');
});

test('a word that resembles none of them gets no suggestion', () => {
  assert.equal(nearest('colour', ['retain', 'hold']), undefined);
  assert.equal(nearest('x', []), undefined);
  assert.equal(nearest('abc', ['xyz']), undefined);
});
