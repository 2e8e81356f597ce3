import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Certificate } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import { decideTrust, formatRootTimes, namedRoots, parseRootTimes, type RootTimes, type TrustInput } from './trust.ts';

const now = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const make = (name: string, notAfter: number) => SandboxCa.root({ name, notBefore: now - hour, notAfter }).certificate;
/** From the oldest to the newest. */
const [a, b, c] = [make('a', now + 1000 * hour), make('b', now + 1001 * hour), make('c', now + 1002 * hour)] as const;
const none: RootTimes = new Map();
const input = (given: Partial<TrustInput>): TrustInput => ({
  named: [],
  published: [],
  since: none,
  now,
  retainMs: 24 * hour,
  withdrawn: [],
  leafLifetimeMs: hour,
  ...given,
});
const names = (certificates: readonly Certificate[]) => certificates.map(({ subject }) => subject.slice(3)).join('');

describe('the bundle', () => {
  test('is what the mesh names, at first, and none of its roots counts as new', () => {
    const decision = decideTrust(input({ named: [a, b] }));
    assert.equal(names(decision.bundle), 'ba');
    assert.equal(decision.since.size, 0);
  });

  test('grows by a new root at once, and records since when', () => {
    const decision = decideTrust(input({ named: [b, a], published: [a] }));
    assert.equal(names(decision.bundle), 'ba');
    assert.deepEqual(decision.since.get(b.fingerprint), { state: 'added', at: now });
  });

  test('keeps a root that the mesh dropped until retention passes (linkerd2 issue 4287)', () => {
    const first = decideTrust(input({ named: [b], published: [a, b] }));
    assert.equal(names(first.bundle), 'ba');
    assert.deepEqual(first.since.get(a.fingerprint), { state: 'retained', at: now });
    assert.equal(first.nextChangeAt, now + 24 * hour);
    const late = { named: [b], published: first.bundle, since: first.since };
    assert.equal(names(decideTrust(input({ ...late, now: now + 24 * hour - 1 })).bundle), 'ba');
    const last = decideTrust(input({ ...late, now: now + 24 * hour }));
    assert.equal(names(last.bundle), 'b');
    assert.deepEqual(last.dropped, [{ certificate: a, reason: 'retained' }]);
    assert.equal(last.since.size, 0);
  });

  test('keeps a dropped root at least as long as a leaf may live', () => {
    const first = decideTrust(input({ named: [b], published: [a, b], retainMs: 0, leafLifetimeMs: 3 * hour }));
    assert.equal(first.nextChangeAt, now + 3 * hour);
  });

  test('keeps a root that the published leaf needs, however long the mesh has not named it', () => {
    const ca = SandboxCa.root({ name: 'a', notBefore: now - hour, notAfter: now + 1000 * hour });
    const chain = [ca.issue(PrivateKey.generate(), { notBefore: now - hour, notAfter: now + hour })];
    const old = ca.certificate;
    const since: RootTimes = new Map([[old.fingerprint, { state: 'retained', at: now - 1000 * hour }]]);
    const given = { named: [b], published: [old, b], since, chains: [chain] };
    assert.equal(names(decideTrust(input(given)).bundle), 'ba');
    assert.deepEqual(decideTrust(input(given)).dropped, []);
    assert.equal(names(decideTrust(input({ ...given, chains: [] })).bundle), 'b');
    const renewed = ca.renew({ notBefore: now - 60_000, notAfter: now + 1000 * hour }).certificate;
    const both = decideTrust(input({ ...given, named: [renewed], published: [old, renewed] }));
    assert.deepEqual(both.bundle, [renewed], 'the same key under a new root is as good');
  });

  test('is newest first: the root that ends last comes first', () => {
    const [early, late] = [make('early', now + hour), make('late', now + 2000 * hour)];
    assert.deepEqual(decideTrust(input({ named: [early, a, late] })).bundle, [late, a, early]);
    const older = SandboxCa.root({ name: 'older', notBefore: now - 2 * hour, notAfter: a.notAfter }).certificate;
    assert.deepEqual(decideTrust(input({ named: [older, a] })).bundle, [a, older], 'of two with one end, the younger');
  });

  test('loses expired roots, named or not', () => {
    const over = make('x', now);
    const decision = decideTrust(input({ named: [over, a], published: [over] }));
    assert.equal(names(decision.bundle), 'a');
    assert.equal(decision.dropped[0]?.reason, 'expired');
  });

  test('does not change when the mesh names the same roots in another order', () => {
    const decision = decideTrust(input({ named: [c, b, a, a], published: [a, b, c] }));
    assert.equal(names(decision.bundle), 'cba');
    assert.equal(decision.since.size, 0);
  });

  test('has a limit, beyond which the published bundle stays and no retained root leaves early', () => {
    const since: RootTimes = new Map([[a.fingerprint, { state: 'retained', at: now - hour }]]);
    const limits = { bundle: 2, bundleBytes: 1_000_000 };
    const before = { published: [b, a], since, limits };
    const decision = decideTrust(input({ ...before, named: [b, c] }));
    assert.equal(names(decision.bundle), 'ba');
    assert.deepEqual(decision.since, since);
    assert.equal(decision.problem?.code, 'ERR_TRUST_LIMIT');
    assert.match(decision.problem?.message ?? '', /names 2 trust roots; with 1 retained ones .* 3 roots .* are 2 and/);
    const later = decideTrust(input({ ...before, named: [b, c], now: now + 23 * hour }));
    assert.equal(names(later.bundle), 'cb', 'once the retained root has left, there is room');
    assert.equal(later.problem, undefined);
    const first = decideTrust(input({ named: [a, b, c], limits }));
    assert.deepEqual([first.bundle, first.problem?.code], [[], 'ERR_TRUST_LIMIT']);
    const large = decideTrust(input({ named: [b, c], published: [b], limits: { bundle: 9, bundleBytes: 900 } }));
    assert.deepEqual([names(large.bundle), large.problem?.code], ['b', 'ERR_TRUST_LIMIT']);
  });

  test('stays as it is when the mesh names nothing: that is a fault and not a change', () => {
    const since: RootTimes = new Map([[b.fingerprint, { state: 'retained', at: now - hour }]]);
    const decision = decideTrust(input({ named: [], published: [a, b], since }));
    assert.equal(names(decision.bundle), 'ba');
    assert.deepEqual(decision.since, since);
  });
});

describe('a root that was renewed with the same key', () => {
  const key = PrivateKey.generate();
  const ca = SandboxCa.root({ name: 'r', key, notBefore: now - 100 * hour, notAfter: now + 10 * hour });
  const old = ca.certificate;
  const renewed = ca.renew({ notBefore: now, notAfter: now + 100 * hour }).certificate;
  const at = (ms: number, given: Partial<TrustInput> = {}) =>
    decideTrust(input({ named: [renewed], published: [old], now: ms, ...given }));

  test('gives way to its successor once it is valid for every clock, long before its own end', () => {
    const early = at(now);
    assert.deepEqual(early.bundle, [old], 'a gateway whose clock is behind would refuse the new one');
    assert.equal(early.nextChangeAt, now + 30_000);
    const after = at(now + 30_000);
    assert.deepEqual(after.bundle, [renewed]);
    assert.deepEqual(after.dropped, [{ certificate: old, reason: 'replaced' }]);
    assert.deepEqual(at(now + 30_000, { named: [old, renewed] }).bundle, [renewed], 'even if the mesh names both');
    assert.equal(at(now + 30_000, { published: [], named: [old, renewed] }).bundle.length, 1);
  });

  test('gives way within half of the time that both are valid, if that is short', () => {
    const last = ca.renew({ notBefore: old.notAfter - 20_000, notAfter: old.notAfter + hour }).certificate;
    const given = { named: [last] };
    assert.deepEqual(at(old.notAfter - 10_001, given).bundle, [old]);
    assert.deepEqual(at(old.notAfter - 10_000, given).bundle, [last]);
    const late = ca.renew({ notBefore: old.notAfter + hour, notAfter: old.notAfter + 2 * hour }).certificate;
    assert.deepEqual(at(old.notAfter - 1, { named: [late] }).bundle, [old]);
    assert.deepEqual(at(old.notAfter, { named: [late] }).bundle, [late]);
  });

  test('is the same trust anchor: it is neither new nor retained', () => {
    assert.equal(at(now + hour).since.size, 0);
    const added: RootTimes = new Map([[old.fingerprint, { state: 'added', at: now - 1000 }]]);
    const next = at(now + hour, { since: added });
    assert.deepEqual([...next.since], [[renewed.fingerprint, { state: 'added', at: now - 1000 }]]);
  });

  test('does not come back when a lagging replica of the mesh names it again, nor does its successor leave', () => {
    const back = at(now + hour, { named: [old], published: [renewed] });
    assert.deepEqual([back.bundle, back.since.size, back.nextChangeAt], [[renewed], 0, renewed.notAfter]);
  });

  test('stays beside a root of the same subject and key that verifies other chains, until shortly before its end', () => {
    const other = SandboxCa.root({
      ...{ name: 'r', key, keyId: 'sha256' },
      ...{ notBefore: now - hour, notAfter: now + 100 * hour },
    }).certificate;
    assert.notEqual(other.subjectKeyId, old.subjectKeyId);
    const given = { named: [old, other] };
    assert.deepEqual(at(now, given).bundle, [other, old]);
    const early = at(now, { ...given, leafLifetimeMs: 100 * hour });
    assert.equal(early.nextChangeAt, old.notAfter - 1.1 * hour, 'a tenth of the time that both are valid');
    assert.equal(at(now, given).nextChangeAt, old.notAfter - hour, 'a leaf lifetime');
    assert.deepEqual(at(old.notAfter - hour, given).bundle, [other]);
    const chain = [ca.issue(PrivateKey.generate(), { notBefore: now, notAfter: old.notAfter })];
    assert.deepEqual(
      at(old.notAfter - hour, { ...given, chains: [chain] }).bundle,
      [other, old],
      'if no chain needs it',
    );
  });

  test('comes last while its successor of another key identifier is so young that it may not be valid yet for some clock', () => {
    const other = SandboxCa.root({
      ...{ name: 'r', key, keyId: 'sha256' },
      ...{ notBefore: now, notAfter: now + 100 * hour },
    }).certificate;
    const young = at(now, { named: [old, other] });
    assert.deepEqual([young.bundle, young.nextChangeAt], [[old, other], now + 30_000]);
    assert.deepEqual(at(now + 30_000, { named: [old, other] }).bundle, [other, old]);
  });
});

describe('the times', () => {
  test('keep the moment at which a root was first named, until it is gone', () => {
    const since: RootTimes = new Map([[b.fingerprint, { state: 'added', at: now - hour }]]);
    assert.deepEqual(decideTrust(input({ named: [a, b], published: [a, b], since })).since, since);
  });

  test('count a root that comes back as new: upstreams that knew it may have forgotten it', () => {
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

  test('are whole seconds, rounded up when something is retained, so that nothing leaves early', () => {
    const odd = now + 1;
    const decision = decideTrust(input({ named: [b], published: [a], now: odd }));
    assert.equal(decision.since.get(a.fingerprint)?.at, now + 1000);
    assert.equal(decision.since.get(b.fingerprint)?.at, now);
  });

  test('show which published roots the mesh named', () => {
    const { bundle, since } = decideTrust(input({ named: [b, c], published: [a, b] }));
    assert.equal(names(namedRoots(bundle, since)), 'cb');
  });
});

describe('the annotation', () => {
  test('reads back as it was written', () => {
    const { bundle, since } = decideTrust(input({ named: [b, c], published: [a, b] }));
    const text = formatRootTimes(since);
    assert.match(text, /^\+[0-9a-f]{16}=2026-06-01T00:00:00Z,-[0-9a-f]{16}=2026-06-01T00:00:00Z$/);
    assert.deepEqual(parseRootTimes(text, bundle), new Map(since));
  });

  test('is empty for nothing, and invalid entries in it affect only themselves', () => {
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

describe('a withdrawn root', () => {
  const withdrawn = [a.fingerprint];

  test('leaves at once, whether the mesh names it, has stopped naming it, or a chain needs it', () => {
    const ca = SandboxCa.root({ name: 'd', notBefore: now - hour });
    const out = [a.fingerprint, ca.certificate.fingerprint];
    const { chain } = ca.identity({ uris: ['spiffe://a/b'] });
    const since: RootTimes = new Map([[ca.certificate.fingerprint, { state: 'retained', at: now }]]);
    const given = { named: [a, b], published: [a, b, ca.certificate], since, chains: [chain], withdrawn: out };
    const decision = decideTrust(input(given));
    assert.equal(names(decision.bundle), 'b');
    assert.equal(names(decision.withdrawn), 'ad');
    assert.deepEqual(
      decision.dropped.map(({ reason }) => reason),
      ['withdrawn', 'withdrawn'],
    );
    assert.equal(decision.problem, undefined);
  });

  test('takes those with it that have its key', () => {
    const ca = SandboxCa.root({ name: 'd', notBefore: now - hour });
    const renewed = ca.renew({ lifetimeMs: 9000 * hour }).certificate;
    const given = { named: [renewed, b], published: [ca.certificate, b], withdrawn: [ca.certificate.fingerprint] };
    assert.equal(names(decideTrust(input(given)).bundle), 'b');
  });

  test('stays, with an error, while it is the last one, and leaves when there is another', () => {
    const last = decideTrust(input({ named: [a], published: [a], withdrawn }));
    assert.deepEqual([names(last.bundle), last.problem?.code], ['a', 'ERR_TRUST_WITHDRAWN']);
    assert.equal(names(decideTrust(input({ named: [a, b], published: [a], withdrawn })).bundle), 'b');
  });

  test('is never added, not even as the first one or when every retained root has ended', () => {
    const first = decideTrust(input({ named: [a], withdrawn }));
    assert.deepEqual([first.bundle, first.problem?.code], [[], 'ERR_TRUST_WITHDRAWN']);
    const since: RootTimes = new Map([[b.fingerprint, { state: 'retained', at: now - 48 * hour }]]);
    assert.ok(!decideTrust(input({ named: [a], published: [b], since, withdrawn })).bundle.includes(a));
  });
});
