import assert from 'node:assert/strict';
import { it } from 'node:test';
import { runTraffic } from './parts/traffic.ts';

const FIVE_MINUTES = 300_000;

it('loses no request in three meshes while leaves rotate every few seconds and roots every minute', async () => {
  const durationMs = Number(process.env.MESHCERT_TRAFFIC_MS ?? FIVE_MINUTES);
  const seen = await runTraffic(durationMs);
  console.log(seen.line);
  assert.deepEqual([seen.failed, seen.failures], [0, []], seen.log);
  assert.deepEqual(seen.violations, []);
  for (const { name, leaves } of seen.meshes) {
    assert.ok(leaves >= durationMs / 15_000, `${name} rotated ${leaves} times\n${seen.log}`);
  }
  // The work is the same at the end as at the beginning; a leak of one rotation's objects would show.
  assert.ok(seen.rss.late < 1.25 * seen.rss.early, seen.line);
});
