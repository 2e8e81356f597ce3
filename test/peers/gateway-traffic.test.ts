import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type RotationSummary, runGatewayRotations } from './parts/gateway-rotations.ts';
import { PLACES } from './parts/gateway-traffic.ts';

const durationMs = Number(process.env.MESHCERT_TRAFFIC_MS ?? 75_000);
const perSecond = 50 / PLACES.length;

function holds({ line, log, refusals, roots, sites }: RotationSummary, leaves: number): void {
  console.log(line);
  for (const site of sites) {
    const { failed, failures, plaintext, refused, violations } = site;
    assert.deepEqual(
      { failed, failures, plaintext, refused },
      { failed: 0, failures: [], plaintext: 0, refused: 0 },
      log,
    );
    assert.deepEqual(violations, []);
    assert.ok(site.leaves >= leaves && site.presented >= leaves, line);
  }
  assert.deepEqual(refusals, []);
  assert.ok(roots >= 1, line);
}

it('loses no request in any place of the certificate while leaves rotate every few seconds, and a root', async () => {
  holds(await runGatewayRotations({ durationMs, places: PLACES, perSecond }), durationMs / 15_000);
});

it('loses no request while the agent is killed again and again during the rotation of a root', async () => {
  const seen = await runGatewayRotations({ durationMs, places: PLACES, perSecond, killAfterMs: 3_000 });
  holds(seen, 3);
  assert.ok(seen.kills >= 5, seen.line);
});
