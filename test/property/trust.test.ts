import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatRootTimes, parseRootTimes } from '../../src/core/root-times.ts';
import { decideTrust, type RootTimes, type TrustDecision } from '../../src/core/trust.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { SandboxCa } from '../../src/sandbox/ca.ts';

const start = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const key = PrivateKey.generate();
/** The last two expire within the time that the histories span. */
const roots = Array.from({ length: 8 }, (_, at) =>
  SandboxCa.root({ name: `r${at}`, key, notBefore: start - hour, notAfter: start + (at < 6 ? 10_000 : 20) * hour }),
).map(({ certificate }) => certificate);

const moments = fc.array(
  fc.record({
    named: fc.uniqueArray(fc.nat(roots.length - 1), { minLength: 1, maxLength: 5 }),
    waitMs: fc.integer({ min: 0, max: 10 * hour }),
  }),
  { minLength: 1, maxLength: 25 },
);
const settings = fc.record({
  retainMs: fc.integer({ min: 0, max: 30 * hour }),
  leafLifetimeMs: fc.integer({ min: 0, max: 10 * hour }),
});
const ids = (certificates: readonly Certificate[]) => certificates.map(({ fingerprint }) => fingerprint);

/** What is published at each moment is what was decided the moment before, read back through the annotation. */
function* history(
  given: { named: number[]; waitMs: number }[],
  policy: { retainMs: number; leafLifetimeMs: number; cap?: number },
) {
  let published: readonly Certificate[] = [];
  let since: RootTimes = new Map();
  let now = start;
  for (const { named: chosen, waitMs } of given) {
    now += waitMs;
    const named = chosen.map((at) => roots[at]).filter((root) => root !== undefined);
    const decision: TrustDecision = decideTrust({ named, published, since, now, ...policy });
    yield { now, named, published, since, decision };
    ({ bundle: published } = decision);
    since = parseRootTimes(formatRootTimes(decision.since), published);
  }
}

test('a root that was published stays until its retention passes or it expires', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      const unnamedSince = new Map<string, number>();
      for (const { now, named, published, decision } of history(given, policy)) {
        const bundle = new Set(ids(decision.bundle));
        for (const root of published) {
          const { fingerprint } = root;
          if (named.includes(root)) unnamedSince.delete(fingerprint);
          else if (!unnamedSince.has(fingerprint)) unnamedSince.set(fingerprint, now);
          const gone = now - (unnamedSince.get(fingerprint) ?? now);
          const due = gone >= Math.max(policy.retainMs, policy.leafLifetimeMs);
          if (!bundle.has(fingerprint))
            assert.ok(now >= root.notAfter || (due && unnamedSince.has(fingerprint)), 'dropped early');
          else if (unnamedSince.has(fingerprint))
            assert.ok(!due || gone < Math.max(policy.retainMs, policy.leafLifetimeMs) + 1000, 'kept too long');
          if (!bundle.has(fingerprint)) unnamedSince.delete(fingerprint);
        }
      }
    }),
  );
});

test('every root that the mesh names is in the bundle unless it expired, so the bundle is never empty then', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { now, named, decision } of history(given, policy)) {
        for (const root of named) assert.equal(decision.bundle.includes(root), now < root.notAfter);
        assert.equal(new Set(ids(decision.bundle)).size, decision.bundle.length);
      }
    }),
  );
});

test('the same question has the same answer, and the order in which the mesh names roots is not part of it', () => {
  fc.assert(
    fc.property(moments, settings, fc.infiniteStream(fc.nat()), (given, policy, noise) => {
      for (const { now, named, decision } of history(given, policy)) {
        const shuffled = named
          .map((root) => ({ root, at: noise.next().value ?? 0 }))
          .sort((a, b) => a.at - b.at)
          .map(({ root }) => root);
        const again = decideTrust({
          named: shuffled,
          published: decision.bundle,
          since: decision.since,
          now,
          ...policy,
        });
        assert.deepEqual(ids(again.bundle), ids(decision.bundle));
        assert.equal(formatRootTimes(again.since), formatRootTimes(decision.since));
      }
    }),
  );
});

test('roots that stay keep their order, so that a change of one is a change of one', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { published, decision } of history(given, policy)) {
        const stayed = published.filter((root) => decision.bundle.includes(root));
        assert.deepEqual(ids(decision.bundle.slice(0, stayed.length)), ids(stayed));
      }
    }),
  );
});

test('nothing changes by itself before the moment that was foretold, and something does at it', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { named, decision } of history(given, policy)) {
        const { bundle, since, nextChangeAt } = decision;
        if (nextChangeAt === undefined) {
          assert.equal(bundle.length, 0);
          continue;
        }
        const at = (now: number) => ids(decideTrust({ named, published: bundle, since, now, ...policy }).bundle);
        assert.deepEqual(at(nextChangeAt - 1), ids(bundle));
        assert.notDeepEqual(at(nextChangeAt), ids(bundle));
      }
    }),
  );
});

test('the cap holds as far as the mesh allows, and no root that the mesh names falls to it', () => {
  fc.assert(
    fc.property(moments, settings, fc.integer({ min: 1, max: 6 }), (given, policy, cap) => {
      for (const { now, named, decision } of history(given, { ...policy, cap })) {
        const alive = named.filter((root) => now < root.notAfter);
        assert.ok(decision.bundle.length <= Math.max(cap, alive.length));
        for (const root of alive) assert.ok(decision.bundle.includes(root));
      }
    }),
  );
});

test('the annotation reads back as it was written, and reading junk never throws', () => {
  fc.assert(
    fc.property(moments, settings, fc.string(), (given, policy, junk) => {
      for (const { decision } of history(given, policy)) {
        assert.deepEqual(parseRootTimes(formatRootTimes(decision.since), decision.bundle), new Map(decision.since));
        for (const time of parseRootTimes(junk, decision.bundle).values()) assert.ok(Number.isFinite(time.at));
      }
    }),
  );
});

test('a root that is new to the cluster is marked as new exactly when something was there before', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { published, decision } of history(given, policy)) {
        for (const root of decision.bundle) {
          if (published.includes(root)) continue;
          assert.equal(decision.since.get(root.fingerprint)?.state, published.length > 0 ? 'added' : undefined);
        }
      }
    }),
  );
});

test('a mesh that names nothing changes nothing but what time changes', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { now, decision } of history(given, policy)) {
        const again = decideTrust({ named: [], published: decision.bundle, since: decision.since, now, ...policy });
        assert.deepEqual(ids(again.bundle), ids(decision.bundle));
        assert.equal(formatRootTimes(again.since), formatRootTimes(decision.since));
      }
    }),
  );
});
