import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { pino } from 'pino';
import { PrivateKey } from '../../src/pki/key.ts';

const key = PrivateKey.generate();
const secrets = [...key.toPem().split('\n').slice(1, -2), key.keyObject.export({ format: 'jwk' }).d ?? ''];

/** The key somewhere within objects, lists, maps, errors and getters. */
const { tree: holders } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constant(key),
    fc.dictionary(fc.constantFrom('key', 'identity', 'data', 'tls.key', 'toJSON2'), tie('tree'), {
      minKeys: 1,
      maxKeys: 3,
      noNullPrototype: true,
    }),
    fc.array(tie('tree'), { minLength: 1, maxLength: 3 }),
    tie('tree').map((value) => new Map([['key', value]])),
    tie('tree').map((value) => new Set([value])),
    tie('tree').map((value) => Object.assign(new Error('failed'), { cause: value, detail: value })),
    tie('tree').map((value) => Object.create({}, { key: { get: () => value, enumerable: true } })),
  ),
}));

test('no way of printing shows a key, however it is nested', () => {
  const lines: string[] = [];
  const log = pino({ level: 'trace' }, { write: (line: string) => lines.push(line) });
  fc.assert(
    fc.property(holders, (holder) => {
      lines.length = 0;
      log.error({ holder, err: holder, key }, 'failed with %o and %s and %j', Object(holder), holder, Object(holder));
      const printed = [
        inspect(holder, { depth: null, showHidden: true, getters: true }),
        JSON.stringify(holder) ?? '',
        ...lines,
      ];
      for (const text of printed) {
        for (const secret of secrets) assert.ok(!text.includes(secret), 'a key was printed');
        assert.doesNotMatch(text, /PRIVATE KEY/);
      }
    }),
    { numRuns: 200 },
  );
});

test('the secrets that are searched for are those of the key', () => {
  assert.ok(secrets.length >= 3 && secrets.every((secret) => secret.length > 10));
});
