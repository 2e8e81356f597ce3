import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import {
  decideTrust,
  formatRootTimes,
  parseRootTimes,
  type RootTimes,
  type TrustDecision,
  type TrustInput,
} from '../../src/core/trust.ts';

import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { openssl, withFiles } from './openssl.ts';

const start = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const far = 10_000;
/**
 * Hours from `start` at which the roots of one subject and key begin and end. Those of `renewed` are one trust anchor;
 * those of `rekeyed` differ in their key identifiers, so that each may verify chains that the other does not.
 */
const families = [
  { name: 'a', periods: [[-1, far]] },
  { name: 'b', periods: [[-1, far]] },
  { name: 'c', periods: [[-1, 20]] },
  { name: 'd', periods: [[-1, 20]] },
  { name: 'renewed', periods: [[-1, 20], [5, 40], [30, far], [31, 33]] },
  { name: 'rekeyed', periods: [[-1, 25], [8, far]] },
] as const; // biome-ignore format: one family a line
const made = families.flatMap(({ name, periods }) => {
  const key = PrivateKey.generate();
  return periods.map(([from, to], at) => {
    const keyId = name === 'rekeyed' && at === 1 ? 'sha256' : 'sha1';
    const ca = SandboxCa.root({ name, key, keyId, notBefore: start + from * hour, notAfter: start + to * hour });
    return { ca, root: ca.certificate, family: name };
  });
});
const roots = made.map(({ root }) => root);
const familyOf = (root: Certificate) => made.find((one) => one.root === root)?.family ?? root.subject;
const anchorNameOf = (root: Certificate) =>
  familyOf(root) === 'rekeyed' ? `rekeyed ${root.subjectKeyId}` : familyOf(root);
const anchors = new Set(roots.map(anchorNameOf));
/** In the order of the list. */
const ofFamily = (name: string, certificates: readonly Certificate[]) =>
  certificates.filter((root) => familyOf(root) === name);

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
type Policy = Pick<TrustInput, 'retainMs' | 'leafLifetimeMs' | 'limits'>;
const policyMs = ({ retainMs, leafLifetimeMs }: Policy) => Math.max(retainMs, leafLifetimeMs);
const ids = (certificates: readonly Certificate[]) => certificates.map(({ fingerprint }) => fingerprint);

/** What is published at each moment is what was decided before, read back through the annotation. */
function* history(given: { named: number[]; waitMs: number }[], policy: Policy) {
  let published: readonly Certificate[] = [];
  let since: RootTimes = new Map();
  let now = start;
  for (const { named: chosen, waitMs } of given) {
    now += waitMs;
    const named = chosen.map((at) => roots[at]).filter((root) => root !== undefined);
    const decision: TrustDecision = decideTrust({ named, published, since, now, withdrawn: [], ...policy });
    yield { now, named, published, since, decision };
    ({ bundle: published } = decision);
    since = parseRootTimes(formatRootTimes(decision.since), published);
  }
}

test('a trust anchor that was published stays until its retention passes or its last root expires', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      const unnamedSince = new Map<string, number>();
      for (const { now, named, published, decision } of history(given, policy)) {
        for (const name of anchors) {
          const of = (list: readonly Certificate[]) => list.filter((root) => anchorNameOf(root) === name);
          const [before, after] = [of(published), of(decision.bundle)];
          if (before.length === 0 || of(named).length > 0) unnamedSince.delete(name);
          else if (!unnamedSince.has(name)) unnamedSince.set(name, now);
          const since = unnamedSince.get(name);
          const due = since !== undefined && now - since >= policyMs(policy);
          const isReplaced =
            name.startsWith('rekeyed') &&
            of(decision.dropped.filter(({ reason }) => reason === 'replaced').map(({ certificate }) => certificate))
              .length > 0;
          const isAlive = before.some(({ notAfter }) => now < notAfter) && !isReplaced;
          if (isAlive && after.length === 0) assert.ok(due, 'dropped early');
          if (after.length > 0 && due) assert.ok(now - since < policyMs(policy) + 1000, 'retained too long');
        }
      }
    }),
  );
});

test('every root that the mesh names is in the bundle, or one of its subject and key that is valid now or as soon', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { now, named, decision } of history(given, policy)) {
        for (const root of named) {
          const present = ofFamily(familyOf(root), decision.bundle);
          if (now >= root.notAfter) continue;
          assert.ok(
            present.some(({ notBefore, notAfter }) => notBefore <= Math.max(now, root.notBefore) && now < notAfter),
            familyOf(root),
          );
        }
        assert.equal(new Set(ids(decision.bundle)).size, decision.bundle.length);
      }
    }),
  );
});

test('no two roots of one trust anchor are in a bundle', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { decision } of history(given, policy)) {
        for (const { name } of families.filter((family) => family.name !== 'rekeyed')) {
          assert.ok(ofFamily(name, decision.bundle).length <= 1, name);
        }
      }
    }),
  );
});

test('whenever the agent stops, no root of the bundle expires before another that follows it with its subject and key', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { now, decision } of history(given, policy)) {
        const settled = decision.bundle.filter(({ notBefore }) => notBefore + 30_000 <= now);
        for (const list of [settled, ...families.map(({ name }) => ofFamily(name, settled))]) {
          const ends = list.map(({ notAfter }) => notAfter);
          assert.deepEqual(
            ends,
            [...ends].sort((a, b) => b - a),
            'newest first',
          );
        }
        for (const { name } of families) {
          const [first] = ofFamily(name, decision.bundle);
          const valid = ofFamily(name, decision.bundle).some(({ notBefore }) => notBefore <= now);
          assert.ok(!first || !valid || first.notBefore <= now, 'the first one is valid already');
        }
      }
    }),
  );
});

test('a root leaves for one of its subject and key only while every clock accepts that, and before its own last second', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { now, decision } of history(given, policy)) {
        for (const { certificate, reason } of decision.dropped) {
          if (reason !== 'replaced' || certificate.notBefore > now) continue;
          const heirs = ofFamily(familyOf(certificate), decision.bundle);
          assert.ok(
            heirs.some(({ notBefore, notAfter }) => notBefore <= now && now < notAfter),
            'it has a successor',
          );
        }
      }
    }),
  );
});

test('what OpenSSL verifies under the roots that the mesh names, it verifies under the bundle', () => {
  const leaves = made.map(({ ca, root }) => {
    const leaf = ca.issue(PrivateKey.generate(), { dns: ['x'], notBefore: root.notBefore, notAfter: root.notAfter });
    return { leaf, root };
  });
  const verifies = ({ pem }: Certificate, under: readonly Certificate[], now: number) =>
    under.length > 0 &&
    withFiles({ leaf: pem, roots: formatCertificates(under) }, (path) => {
      const at = String(Math.floor(now / 1000));
      return openssl(['verify', '-no-CApath', '-CAfile', path('roots'), '-attime', at, path('leaf')]).ok;
    });
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      let before: string[] = [];
      for (const { now, named, decision } of history(given.slice(-3), policy)) {
        if (ids(decision.bundle).join() === before.join()) continue;
        before = ids(decision.bundle);
        for (const { leaf, root } of leaves.filter((one) => named.includes(one.root))) {
          const isEnding = familyOf(root) === 'rekeyed' && root.notAfter - now < 1.7 * hour;
          if (isEnding || !verifies(leaf, named, now)) continue;
          assert.ok(verifies(leaf, decision.bundle, now), `a leaf of ${familyOf(root)}`);
        }
      }
    }),
    { numRuns: 5 },
  );
});

test('equal input gives an equal result, and the order in which the mesh names roots does not matter', () => {
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
          withdrawn: [],
          ...policy,
        });
        assert.deepEqual(ids(again.bundle), ids(decision.bundle));
        assert.equal(formatRootTimes(again.since), formatRootTimes(decision.since));
      }
    }),
  );
});

test('nothing changes by itself before the announced moment, and something does at it', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { now, named, decision } of history(given, policy)) {
        const { bundle, since, nextChangeAt } = decision;
        if (nextChangeAt === undefined) {
          assert.equal(bundle.length, 0);
          continue;
        }
        const at = (then: number) =>
          ids(decideTrust({ named, published: bundle, since, now: then, withdrawn: [], ...policy }).bundle);
        assert.deepEqual(at(nextChangeAt - 1), ids(bundle));
        // A root that was published, is not valid yet and is no longer named would have been the next one.
        const isForgotten = decision.dropped.some(({ certificate, reason }) => {
          return reason === 'replaced' && !named.includes(certificate) && now < certificate.notBefore + 30_000;
        });
        if (!isForgotten) assert.notDeepEqual(at(nextChangeAt), ids(bundle));
      }
    }),
  );
});

test('a mesh that names more roots than a bundle holds is an error, and costs no published root its place', () => {
  fc.assert(
    fc.property(moments, settings, fc.integer({ min: 1, max: 6 }), (given, policy, most) => {
      const limits = { bundle: most, bundleBytes: 1_000_000 };
      for (const { now, named, published, since, decision } of history(given, { ...policy, limits })) {
        const { bundle } = decideTrust({ named, published, since, now, withdrawn: [], ...policy });
        assert.equal(decision.problem?.code, bundle.length > most ? 'ERR_TRUST_LIMIT' : undefined);
        if (!decision.problem) assert.deepEqual(ids(decision.bundle), ids(bundle));
        else {
          const { bundle: unchanged } = decideTrust({ named: [], published, since, now, withdrawn: [], ...policy });
          assert.deepEqual(ids(decision.bundle), ids(unchanged));
        }
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
          const isKnown = published.some((one) => familyOf(one) === familyOf(root));
          if (published.includes(root) || (isKnown && familyOf(root) !== 'rekeyed')) continue;
          assert.equal(decision.since.get(root.fingerprint)?.state, published.length > 0 ? 'added' : undefined);
        }
      }
    }),
  );
});

test('a mesh that names nothing changes only what time changes', () => {
  fc.assert(
    fc.property(moments, settings, (given, policy) => {
      for (const { now, decision } of history(given, policy)) {
        const again = decideTrust({
          named: [],
          published: decision.bundle,
          since: decision.since,
          now,
          withdrawn: [],
          ...policy,
        });
        assert.deepEqual(ids(again.bundle), ids(decision.bundle));
        assert.equal(formatRootTimes(again.since), formatRootTimes(decision.since));
      }
    }),
  );
});
