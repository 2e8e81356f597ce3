import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { PrivateKey } from '../pki/key.ts';
import { decideHold, type HoldInput } from './hold.ts';

const now = Date.UTC(2026, 5, 1);
const minute = 60_000;
const hour = 60 * minute;
const long = { notBefore: now - 1000 * hour, notAfter: now + 1000 * hour };
const key = PrivateKey.generate();
const [rootA, rootB] = [SandboxCa.root({ name: 'a', ...long }), SandboxCa.root({ name: 'b', ...long })] as const;
const leafOf = (ca: SandboxCa, notBefore: number, life = 10 * hour) => ({
  chain: [ca.issue(key, { uris: ['spiffe://td/a'], notBefore, notAfter: notBefore + life }), ...ca.chain],
});
const current = leafOf(rootA, now - hour);
const candidate = leafOf(rootB, now);
const input = (given: Partial<HoldInput> = {}): HoldInput => ({
  candidate,
  current,
  publishedRoots: [rootA.certificate],
  since: new Map(),
  now,
  holdMs: 10 * minute,
  ...given,
});
const added = (at: number): HoldInput['since'] => new Map([[rootB.certificate.fingerprint, { state: 'added', at }]]);
const both = [rootA.certificate, rootB.certificate];

test('a leaf under a root that is not published yet is held', () => {
  assert.deepEqual(decideHold(input()), { hold: true, reason: 'new_root', until: now + 10 * minute });
});

test('a leaf under a new root is held until the root has been published for the hold time, whatever the restarts', () => {
  const since = added(now);
  const held = decideHold(input({ publishedRoots: both, since, now: now + 10 * minute - 1 }));
  assert.deepEqual(held, { hold: true, reason: 'new_root', until: now + 10 * minute });
  const free = decideHold(input({ publishedRoots: both, since, now: now + 10 * minute }));
  assert.deepEqual(free, { hold: false, reason: 'hold_passed' });
});

test('a leaf under a root that was published long before needs no hold', () => {
  assert.deepEqual(decideHold(input({ publishedRoots: both })), { hold: false, reason: 'known_root' });
});

test('a root that came and went within the hold is still a new one', () => {
  const since: HoldInput['since'] = new Map([
    [rootB.certificate.fingerprint, { state: 'retained', at: now, addedAt: now - minute }],
  ]);
  const held = decideHold(input({ publishedRoots: both, since }));
  assert.deepEqual(held, { hold: true, reason: 'new_root', until: now + 9 * minute });
});

test('a leaf that also verifies under the old root needs no hold: same key, or cross-signed', () => {
  const renewed = rootA.renew({ notBefore: now, notAfter: now + 1000 * hour });
  assert.equal(decideHold(input({ candidate: leafOf(renewed, now) })).reason, 'known_root');
  const crossed = { chain: [...candidate.chain, rootA.crossSign(rootB, long)] };
  assert.equal(decideHold(input({ candidate: crossed })).reason, 'known_root');
});

test('the root that already carries the published leaf is not new, however young', () => {
  const under = leafOf(rootB, now - hour);
  const next = decideHold(input({ current: under, publishedRoots: both, since: added(now) }));
  assert.deepEqual(next, { hold: false, reason: 'known_root' });
});

test('a young root proves nothing while the published leaf still depends on an older one', () => {
  const rootC = SandboxCa.root({ name: 'c', ...long });
  const overA = { chain: [...leafOf(rootB, now - hour).chain, rootA.crossSign(rootB, long)] };
  const overB = { chain: [...leafOf(rootC, now).chain, rootB.crossSign(rootC, long)] };
  const held = decideHold(input({ current: overA, candidate: overB, publishedRoots: both, since: added(now) }));
  assert.deepEqual(held, { hold: true, reason: 'new_root', until: now + 10 * minute });
});

test('a probe that accepts ends the hold, and one that refuses extends it to the emergency band', () => {
  assert.deepEqual(decideHold(input({ probe: 'accepted' })), { hold: false, reason: 'probe_accepted' });
  const late = { publishedRoots: both, since: added(now - hour), probe: 'refused' } as const;
  assert.deepEqual(decideHold(input(late)), { hold: true, reason: 'probe_refused', until: now + 8 * hour });
  assert.equal(decideHold(input({ ...late, now: now + 8 * hour })).reason, 'emergency');
});

test('no hold outlives the last tenth of the published leaf', () => {
  const tired = leafOf(rootA, now - 9 * hour + minute);
  assert.deepEqual(decideHold(input({ current: tired })), { hold: true, reason: 'new_root', until: now + minute });
  assert.equal(decideHold(input({ current: tired, now: now + minute })).reason, 'emergency');
});

test('an intermediate that ends before its leaf brings the emergency forward', () => {
  const middle = rootA.intermediate({ notBefore: now - hour, notAfter: now + hour });
  assert.equal(decideHold(input({ current: leafOf(middle, now - hour), now: now + 0.85 * hour })).reason, 'emergency');
});

test('there is nothing to wait for when nothing usable is published', () => {
  assert.equal(decideHold(input({ current: undefined })).reason, 'first');
  assert.equal(decideHold(input({ publishedRoots: [rootB.certificate] })).reason, 'current_unusable');
  assert.equal(decideHold(input({ current: leafOf(rootA, now - 11 * hour) })).reason, 'current_unusable');
  assert.equal(decideHold(input({ candidate: current })).reason, 'same_leaf');
});

test('a hold time of zero holds nothing', () => {
  assert.equal(decideHold(input({ holdMs: 0 })).reason, 'hold_passed');
});
