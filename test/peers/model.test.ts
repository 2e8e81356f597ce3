import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkHistories } from '../model/check.ts';
import { CLOCKS_APART, type Observed } from '../model/ledger.ts';
import { type GoJudge, startGoJudge } from './servers/x509-judges.ts';

/** Clocks differ: a pair that is valid at a moment that some clock may show is not bad. */
const MOMENTS = [0, CLOCKS_APART, -CLOCKS_APART];

test('in any history, Go accepts every pair that is ever written, under each bundle beside it', async (t) => {
  await using go = await startGoJudge();
  await checkHistories(t, {
    runs: 500,
    seed: 952,
    judge: async (observed) => {
      await Promise.all(observed.map((one) => judge(go, one)));
    },
  });
});

async function judge(go: GoJudge, { what, chain, roots, key, at, mayBeOver, beside }: Observed): Promise<void> {
  const reasons: string[] = [];
  for (const apart of MOMENTS) {
    const { ok, stage, reason } = await go.judge({ chain, roots, key, at: at + apart, handshake: true });
    if (ok) return;
    reasons.push(`${stage}: ${reason}`);
  }
  // Nothing is at fault when something ended without a replacement.
  if (mayBeOver && reasons.every((reason) => reason.includes('expired'))) return;
  if (mayBeOver) {
    const last = await go.judge({ chain, roots: beside, key, at: at + CLOCKS_APART, handshake: true });
    if (last.reason?.includes('expired')) return;
  }
  assert.fail(`${what}: Go refuses it: ${reasons[0]}`);
}
