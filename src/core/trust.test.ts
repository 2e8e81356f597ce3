import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Certificate } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import { SandboxCa } from '../sandbox/ca.ts';
import { formatRootTimes, parseRootTimes } from './root-times.ts';
import { decideTrust, namedRoots, type RootTimes, type TrustInput } from './trust.ts';

const now = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const make = (name: string, notAfter = now + 1000 * hour) =>
  SandboxCa.root({ name, notBefore: now - hour, notAfter }).certificate;
const [a, b, c] = [make('a'), make('b'), make('c')] as const;
const none: RootTimes = new Map();
const input = (given: Partial<TrustInput>): TrustInput => ({
  named: [],
  published: [],
  since: none,
  now,
  retainMs: 24 * hour,
  leafLifetimeMs: hour,
  ...given,
});
const names = (certificates: readonly Certificate[]) => certificates.map(({ subject }) => subject.slice(3)).join('');

describe('the bundle', () => {
  test('is what the mesh names, at first, and no root of it counts as new', () => {
    const decision = decideTrust(input({ named: [a, b] }));
    assert.equal(names(decision.bundle), 'ab');
    assert.equal(decision.since.size, 0);
  });

  test('grows by a new root at once, and notes since when', () => {
    const decision = decideTrust(input({ named: [b, a], published: [a] }));
    assert.equal(names(decision.bundle), 'ab');
    assert.deepEqual(decision.since.get(b.fingerprint), { state: 'added', at: now });
  });

  test('keeps a root that the mesh dropped until retention passes (linkerd2 issue 4287)', () => {
    const first = decideTrust(input({ named: [b], published: [a, b] }));
    assert.equal(names(first.bundle), 'ab');
    assert.deepEqual(first.since.get(a.fingerprint), { state: 'retained', at: now });
    assert.equal(first.nextChangeAt, now + 24 * hour);
    const late = { named: [b], published: first.bundle, since: first.since };
    assert.equal(names(decideTrust(input({ ...late, now: now + 24 * hour - 1 })).bundle), 'ab');
    const last = decideTrust(input({ ...late, now: now + 24 * hour }));
    assert.equal(names(last.bundle), 'b');
    assert.deepEqual(last.dropped, [{ certificate: a, reason: 'retained' }]);
    assert.equal(last.since.size, 0);
  });

  test('keeps a dropped root at least as long as a leaf may live', () => {
    const first = decideTrust(input({ named: [b], published: [a, b], retainMs: 0, leafLifetimeMs: 3 * hour }));
    assert.equal(first.nextChangeAt, now + 3 * hour);
  });

  test('keeps a root that the published leaf cannot do without, whatever time and cap say', () => {
    const ca = SandboxCa.root({ name: 'a', notBefore: now - hour, notAfter: now + 1000 * hour });
    const chain = [ca.issue(PrivateKey.generate(), { notBefore: now - hour, notAfter: now + hour })];
    const old = ca.certificate;
    const since: RootTimes = new Map([[old.fingerprint, { state: 'retained', at: now - 1000 * hour }]]);
    const given = { named: [b], published: [old, b], since, chain };
    assert.equal(names(decideTrust(input({ ...given, cap: 1 })).bundle), 'ab');
    assert.deepEqual(decideTrust(input(given)).dropped, []);
    assert.equal(names(decideTrust(input({ ...given, chain: [] })).bundle), 'b');
    const renewed = ca.renew({ notBefore: now, notAfter: now + 1000 * hour }).certificate;
    const both = decideTrust(input({ ...given, named: [renewed], published: [old, renewed] }));
    assert.deepEqual(both.bundle, [renewed], 'the same key under a new root is as good');
  });

  test('loses expired roots, named or not', () => {
    const over = make('x', now);
    const decision = decideTrust(input({ named: [over, a], published: [over] }));
    assert.equal(names(decision.bundle), 'a');
    assert.equal(decision.dropped[0]?.reason, 'expired');
  });

  test('does not change when the mesh names the same roots in another order', () => {
    const decision = decideTrust(input({ named: [c, b, a, a], published: [a, b, c] }));
    assert.equal(names(decision.bundle), 'abc');
    assert.equal(decision.since.size, 0);
  });

  test('has a cap, under which the oldest retained root goes first and named ones never', () => {
    const since: RootTimes = new Map([
      [a.fingerprint, { state: 'retained', at: now - hour }],
      [b.fingerprint, { state: 'retained', at: now - 2 * hour }],
    ]);
    const two = decideTrust(input({ named: [c], published: [a, b], since, cap: 2 }));
    assert.equal(names(two.bundle), 'ac');
    assert.deepEqual(two.dropped, [{ certificate: b, reason: 'cap' }]);
    assert.equal(names(decideTrust(input({ named: [a, b, c], published: [], cap: 1 })).bundle), 'abc');
  });

  test('stays as it is when the mesh names nothing: that is a fault and no news', () => {
    const since: RootTimes = new Map([[b.fingerprint, { state: 'retained', at: now - hour }]]);
    const decision = decideTrust(input({ named: [], published: [a, b], since }));
    assert.equal(names(decision.bundle), 'ab');
    assert.deepEqual(decision.since, since);
  });
});

describe('the times', () => {
  test('keep the moment at which a root was first named, until it is gone', () => {
    const since: RootTimes = new Map([[b.fingerprint, { state: 'added', at: now - hour }]]);
    assert.deepEqual(decideTrust(input({ named: [a, b], published: [a, b], since })).since, since);
  });

  test('count a root that comes back as new: who knew it may have forgotten it', () => {
    const since: RootTimes = new Map([[a.fingerprint, { state: 'retained', at: now - hour }]]);
    const decision = decideTrust(input({ named: [a, b], published: [a, b], since }));
    assert.deepEqual(decision.since.get(a.fingerprint), { state: 'added', at: now });
  });

  test('of a root that came and went are both kept, so that a flicker does not make it an old one', () => {
    const came: RootTimes = new Map([[b.fingerprint, { state: 'added', at: now - 1000 }]]);
    const went = decideTrust(input({ named: [a], published: [a, b], since: came }));
    assert.deepEqual(went.since.get(b.fingerprint), { state: 'retained', at: now, addedAt: now - 1000 });
    assert.deepEqual(parseRootTimes(formatRootTimes(went.since), went.bundle), new Map(went.since));
  });

  test('from a clock that was years ahead are not believed', () => {
    const since: RootTimes = new Map([[a.fingerprint, { state: 'retained', at: now + 10_000 * hour }]]);
    const decision = decideTrust(input({ named: [b], published: [a, b], since }));
    assert.equal(decision.since.get(a.fingerprint)?.at, now);
  });

  test('are whole seconds, up when something is kept, so that nothing goes early', () => {
    const odd = now + 1;
    const decision = decideTrust(input({ named: [b], published: [a], now: odd }));
    assert.equal(decision.since.get(a.fingerprint)?.at, now + 1000);
    assert.equal(decision.since.get(b.fingerprint)?.at, now);
  });

  test('tell which published roots the mesh named', () => {
    const { bundle, since } = decideTrust(input({ named: [b, c], published: [a, b] }));
    assert.equal(names(namedRoots(bundle, since)), 'bc');
  });
});

describe('the annotation', () => {
  test('reads back as it was written', () => {
    const { bundle, since } = decideTrust(input({ named: [b, c], published: [a, b] }));
    const text = formatRootTimes(since);
    assert.match(text, /^\+[0-9a-f]{16}=2026-06-01T00:00:00Z,-[0-9a-f]{16}=2026-06-01T00:00:00Z$/);
    assert.deepEqual(parseRootTimes(text, bundle), new Map(since));
  });

  test('is empty for nothing, and junk in it costs only what it says', () => {
    assert.equal(formatRootTimes(none), '');
    assert.equal(parseRootTimes(undefined, [a]).size, 0);
    const good = `-${a.fingerprint.slice(0, 16)}=2026-06-01T00:00:00Z`;
    const junk = [
      `${good} `,
      'x',
      `-${b.fingerprint.slice(0, 16)}=never`,
      '-0000000000000000=2026-06-01T00:00:00Z',
      `*${b.fingerprint.slice(0, 16)}=2026-06-01T00:00:00Z`,
      '',
    ];
    assert.deepEqual([...parseRootTimes(junk.join(','), [a, b]).keys()], [a.fingerprint]);
  });
});
