import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cliRefusal } from '../support/openssl-cli.ts';
import { checkHistories } from './check.ts';
import { CLOCKS_APART, type Observed } from './ledger.ts';

/** Each question costs two runs of a command: one for this many pairs takes a second or two of the suite. */
const ONE_IN = 50;

let count = 0;

/** The openssl command judges a sample; test/peers/model.test.ts asks Go about all. */
async function judgeSample(observed: readonly Observed[]): Promise<void> {
  for (const one of observed) {
    count += 1;
    if (count % ONE_IN !== 0) continue;
    const refusal = cliRefusal(one, one.at);
    if (refusal !== undefined && one.mayBeOver && isOver(one, refusal)) continue;
    assert.equal(refusal, undefined, `${one.what}: the openssl command refuses it`);
  }
}

function isOver(one: Observed, refusal: string): boolean {
  if (refusal.includes('expired')) return true;
  const beside = cliRefusal({ ...one, roots: one.beside }, one.at + CLOCKS_APART);
  return beside?.includes('expired') ?? false;
}

/** test:peers plays 500 others, and test:model 10,000 new ones. */
test('through any history of rotations and faults, nothing that works is broken and everything converges in the end', (t) =>
  checkHistories(t, { runs: 100, seed: 951, judge: judgeSample }));
