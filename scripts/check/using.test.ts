import assert from 'node:assert/strict';
import { test } from 'node:test';
import { transform } from 'esbuild';
import { linesOf } from './using.ts';

const CAUGHT = `const seen = [];
for (let round = 0; round < 2; round++) {
  try {
    using held = { [Symbol.dispose]() {} };
    if (round === 0) throw new Error('first');
    seen.push('fine');
  } catch (error) {
    seen.push(error.message);
  }
}
return seen;`;

test('esbuild still throws the error of one iteration again in the next: otherwise this check may be removed', async () => {
  const { code } = await transform(`globalThis.told = (() => {${CAUGHT}})()`, { target: 'node20.18' });
  assert.deepEqual(new Function(`${code}; return globalThis.told;`)(), ['first', 'fine', 'first']);
});

test('a `using` that is caught in its loop is found, and no other', () => {
  assert.deepEqual(linesOf(`function f() { ${CAUGHT} }`), [4]);
  assert.deepEqual(linesOf('while (a) { using b = c(); try { d(); } catch {} }'), []);
  assert.deepEqual(linesOf('try { while (a) { using b = c(); } } catch {}'), []);
  assert.deepEqual(linesOf('while (a) try { b.map(() => { using c = d(); }); } catch {}'), []);
  assert.deepEqual(linesOf('for (const a of b) { try { await using c = d(); } finally { e(); } }'), []);
});
