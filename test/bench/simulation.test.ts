import assert from 'node:assert/strict';
import { it } from 'node:test';
import { costsOfDay } from './costs.ts';
import { type SimulationOptions, simulate } from './simulation.ts';

const HOUR = 3_600_000;
const FLEET: SimulationOptions = { identities: 5_000, shards: 4, days: 2, leafLifetimeMs: 24 * HOUR, start: 'grown' };
const EVEN = FLEET.identities / (FLEET.leafLifetimeMs * 0.63);

it('asks as often as leaves fall due when nothing happens', () => {
  const { issued, failed, expired } = simulate(FLEET);
  const expected = EVEN * FLEET.days * 24 * HOUR;
  assert.ok(Math.abs(issued - expected) < expected / 20, `${issued} issued, ${expected} expected`);
  assert.deepEqual({ failed, expired }, { failed: 0, expired: 0 });
});

it('loses no leaf to a CA that is away for an hour, and has caught up five minutes later', () => {
  const { failed, expired, recovery = Number.NaN } = simulate({ ...FLEET, outage: [24 * HOUR, 25 * HOUR] });
  assert.ok(failed > 0);
  assert.equal(expired, 0);
  assert.ok(recovery <= 300, `over after ${recovery} s`);
});

it('issues a new fleet as fast as the processes can, once each', () => {
  const fleet: SimulationOptions = { ...FLEET, days: 0.5, start: 'new', capacity: 50 };
  const { issued, failed, peakOfShard, recovery = Number.NaN } = simulate(fleet);
  assert.deepEqual({ issued, failed }, { issued: FLEET.identities, failed: 0 });
  assert.ok(peakOfShard <= 51, `${peakOfShard} in one second of one process`);
  const share = FLEET.identities / FLEET.shards / 50;
  assert.ok(recovery >= share && recovery < share * 1.2, `over after ${recovery} s`);
});

it('issues a new fleet soon after a CA comes back that was away in the first hour', () => {
  const { issued, recovery = Number.NaN } = simulate({
    ...{ ...FLEET, days: 0.5, start: 'new', capacity: 50 },
    outage: [0, HOUR],
  });
  assert.equal(issued, FLEET.identities);
  // While there is no leaf, the delay is at most 30 s.
  assert.ok(recovery <= 60, `over after ${recovery} s`);
});

it('renews nothing because every process restarts', () => {
  const [restarted, undisturbed] = [simulate({ ...FLEET, restartAt: 24 * HOUR }), simulate(FLEET)];
  assert.ok(Math.abs(restarted.issued - undisturbed.issued) < undisturbed.issued / 100);
  assert.equal(restarted.expired, 0);
});

it('does not renew all leaves at once when the mesh names another root', () => {
  const { expired, peak, recovery = Number.NaN } = simulate({ ...FLEET, rootsChangeAt: 24 * HOUR });
  assert.equal(expired, 0);
  // 100 a second for the whole fleet: 50 s for 5,000, and a second that has half as many again is chance.
  assert.ok(peak < 150, `${peak} in one second`);
  assert.ok(recovery <= 50, `over after ${recovery} s`);
});

it('counts a day of a fleet: two requests a rotation, never more reconfigures than batches', () => {
  const [small, large] = [costsOfDay(10, 24 * HOUR), costsOfDay(100_000, 24 * HOUR)];
  assert.equal(Math.round(small.rotations), 16);
  assert.equal(small.requests, 2 * small.rotations);
  assert.equal(Math.round(small.reconfigures), 16, 'each rotation comes alone');
  assert.ok(large.reconfigures < 86_400);
});
