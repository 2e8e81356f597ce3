import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseJson } from './input.ts';

describe('untrusted JSON', () => {
  it('is read as JSON.parse reads it, within the limits', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.nat(3), (value, spaces) => {
        const text = JSON.stringify(value, null, spaces);
        assert.deepEqual(parseJson(text), JSON.parse(text));
      }),
    );
  });

  it('is refused by number and depth before it is decoded, and brackets in strings do not count', () => {
    const deep = '['.repeat(2_000_000);
    const many = `[${'0,'.repeat(1_000_000)}0]`;
    const fields = `{${'"a":{},'.repeat(500_000)}"a":0}`;
    for (const text of [deep, many, fields]) assert.throws(() => parseJson(text), RangeError);
    const text = JSON.stringify(['[{,:'.repeat(100_000), '\\"[[['.repeat(100_000)]);
    assert.deepEqual(parseJson(text), JSON.parse(text));
  });

  it('never quotes what it cannot read', () => {
    for (const text of ['secret-token', '{"a": secret-token}', '"secret-token', '\\secret-token']) {
      assert.throws(() => parseJson(text), { name: 'SyntaxError', message: 'not JSON' });
    }
  });
});
