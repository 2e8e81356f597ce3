import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { interning } from './interning.ts';

/** As it comes from the server: a new copy each time. */
const fresh = <T>(value: T): T => JSON.parse(JSON.stringify(value));

describe('interning', () => {
  it('makes equal parts one and leaves the whole as it was', () => {
    const share = interning();
    const one = { name: 'a', conditions: [{ type: 'Ready', status: 'True' }], empty: [], none: null, count: 3 };
    const first = share(fresh(one));
    const second = share(fresh({ ...one, name: 'b' }));
    assert.deepEqual(first, one);
    assert.deepEqual(second, { ...one, name: 'b' });
    assert.equal(first.conditions, second.conditions);
    assert.equal(first.empty, second.empty);
    assert.equal(share(fresh(one)), first);
  });

  it('does not take one thing for another that is written alike', () => {
    const share = interning();
    const alike = [
      [],
      {},
      [1],
      ['1'],
      { 0: 1 },
      null,
      'null',
      { a: 'b' },
      { 'a=#1,b': 'c' },
      true,
      'true',
      [[1], 2],
      [1, [2]],
    ];
    for (const value of [...alike, ...alike]) assert.deepEqual(share(fresh(value)), value);
  });

  it('never remembers what is in a field to be left out, nor what is long', () => {
    const share = interning('data');
    const secret = { data: { 'tls.key': 'short' }, labels: { app: 'meshcert' }, more: { text: 'x'.repeat(300) } };
    const [first, second] = [share(fresh(secret)), share(fresh(secret))];
    assert.deepEqual(second, secret);
    assert.notEqual(first.data, second.data);
    assert.notEqual(first.more, second.more);
    assert.equal(first.labels, second.labels);
  });

  it('does not take one hidden text for another, and leaves functions alone', () => {
    class Hidden {
      readonly #text: string;
      constructor(text: string) {
        this.#text = text;
      }
      reveal = (): string => this.#text;
    }
    const share = interning();
    const configs = ['one', 'other'].map((text) => share({ token: new Hidden(text), get: () => text }));
    assert.deepEqual(
      configs.map(({ token, get }) => [token.reveal(), get()]),
      [
        ['one', 'one'],
        ['other', 'other'],
      ],
    );
  });

  it('forgets what it has not met for long', () => {
    const share = interning();
    const old = share(fresh({ name: 'old' }));
    for (let at = 0; at < 2_000; at++) share({ name: `${at}`, common: { of: 'all' } });
    assert.notEqual(share(fresh({ name: 'old' })), old);
  });
});
