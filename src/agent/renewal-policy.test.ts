import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { MeshError } from '../mesh/error.ts';
import { CertificatePolicy } from './renewal-policy.ts';

const MINUTE = 60_000;

describe('the renewal policy', () => {
  const clock = new FakeClock();
  const ca = SandboxCa.root({ clock });
  const policy = (fleet = 1) =>
    new CertificatePolicy({
      env: { clock, random: () => 0.5, fleet: () => fleet },
      spec: { renewal: { at: 0.6, jitter: 0.06 } },
      publishedSince: () => undefined,
      refuse: async () => undefined,
      changed: () => {},
    });
  const leaf = (lifetimeMs: number, notBeforeSkewMs: number) => {
    const [issued] = ca.identity({ uris: ['spiffe://td/ns/a/sa/b'], lifetimeMs, notBeforeSkewMs }).chain;
    assert.ok(issued);
    return issued;
  };

  it('counts the life of a fresh leaf from its issue, however far the CA backdates it', () => {
    const due = policy().renewAt(leaf(MINUTE, 2 * MINUTE), clock.now());
    assert.ok(due > clock.now() + 0.59 * MINUTE && due < clock.now() + 0.67 * MINUTE);
  });

  it('counts from the start of validity when the time of issue is not known', () => {
    const due = policy().renewAt(leaf(60 * MINUTE, 0));
    assert.ok(due > clock.now() + 0.59 * 60 * MINUTE && due < clock.now() + 0.67 * 60 * MINUTE);
  });

  it('spreads a change of roots over a time that grows with the fleet, and is short compared to the life of a leaf', () => {
    const spreadOf = (fleet: number, lifetimeMs: number) => {
      const spread = policy(fleet);
      spread.leaf = leaf(lifetimeMs, 0);
      return spread.rootsSpreadMs;
    };
    assert.equal(spreadOf(1, 24 * 60 * MINUTE), MINUTE / 2);
    assert.equal(spreadOf(3_000, 24 * 60 * MINUTE), MINUTE / 2);
    assert.equal(spreadOf(100_000, 24 * 60 * MINUTE), 1_000_000);
    assert.equal(spreadOf(100_000, 60 * MINUTE), 3 * MINUTE);
    assert.equal(spreadOf(1, 2 * MINUTE), 6_000);
  });

  for (const random of [0, 0.5, 0.999]) {
    it(`asks at least every 30 s while there is no valid leaf, with every draw at ${random}`, async () => {
      const expired = leaf(MINUTE, 2 * MINUTE);
      for (const current of [undefined, expired]) {
        const local = new FakeClock();
        const asking = new CertificatePolicy({
          env: { clock: local, random: () => random, fleet: () => 1 },
          spec: { renewal: { at: 0.6, jitter: 0.06 } },
          publishedSince: () => undefined,
          refuse: async () => undefined,
          changed: () => {},
        });
        const error = new MeshError('ERR_MESH_UNREACHABLE', 'away');
        for (let attempt = 1; attempt < 500; attempt += 1) {
          const gap = asking.admit(current) || asking.retryDelay(attempt, error, current);
          assert.ok(gap > 0 && gap <= 30_000, `attempt ${attempt} comes after ${gap} ms`);
          await local.advance(gap);
        }
      }
    });
  }

  it('asks soon after the end of a leaf, whatever happened to the attempts before', async () => {
    const local = new FakeClock(clock.now());
    const asking = new CertificatePolicy({
      env: { clock: local, random: () => 0.5, fleet: () => 1 },
      spec: { renewal: { at: 0.6, jitter: 0.06 } },
      publishedSince: () => undefined,
      refuse: async () => undefined,
      changed: () => {},
    });
    const ending = leaf(10 * MINUTE, 0);
    const error = new MeshError('ERR_MESH_UNREACHABLE', 'away');
    await local.advance(ending.notAfter - local.now() - 20_000);
    while (asking.admit(ending) === 0);
    let last = local.now();
    for (let attempt = 1; local.now() < ending.notAfter + 10 * MINUTE; ) {
      const budget = asking.admit(ending);
      if (budget === 0) {
        assert.ok(local.now() - last <= 30_000, `${local.now() - last} ms`);
        last = local.now();
        attempt += 1;
      }
      await local.advance(budget || asking.retryDelay(attempt, error, ending));
    }
  });

  it('waits at least as long as the mesh asked for', () => {
    const error = new MeshError('ERR_MESH_RATE_LIMITED', 'later', { retry: { afterMs: 90_000 } });
    assert.equal(policy().retryDelay(1, error, undefined), 90_000);
  });

  it('asks a CA that grants no useful lifetime no more often than the budget allows', () => {
    const kept = policy();
    const short = leaf(1000, 0);
    let asked = 0;
    while (kept.admit(short) === 0) asked += 1;
    assert.ok(asked > 0 && asked < 100_000);
    assert.ok(kept.admit(short) > 0);
  });
});
