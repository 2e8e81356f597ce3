import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../tree.ts';

const page = readFileSync(join(ROOT, 'docs/threat-model.md'), 'utf8');

/** The last cell of each row of the table of actors, split where one thing that the actor could not do ends. */
const claims = page
  .slice(page.indexOf('| actor |'))
  .split('\n\n')[0]
  ?.split('\n')
  .slice(2)
  .map((line) => line.split(' | '))
  .map(([actor = '', , limits = '']) => ({ actor, limits: limits.replace(/ \|$/, '').split('; ') }));

test('each thing that an actor could not do names the test that shows it', () => {
  assert.ok((claims?.length ?? 0) > 10);
  for (const { actor, limits } of claims ?? []) {
    for (const claim of limits) {
      const tests = [...claim.matchAll(/`((?:src|adapters|test)\/[^`]+)`/g)].map(([, path = '']) => path);
      assert.notEqual(tests.length, 0, `${actor}: ${claim}`);
      assert.deepEqual(
        tests.filter((path) => !existsSync(join(ROOT, path))),
        [],
        actor,
      );
    }
  }
});
