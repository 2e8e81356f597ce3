import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Case, makeCase } from '../fuzz/cases.ts';
import { crlTable, describeCrl, fuzzCrls, makeCrlCase, unknownCrls } from '../fuzz/crls.ts';
import { crlsAtEnvoy, notAnswered, notLoaded } from '../fuzz/envoy.ts';
import { opinionOn } from '../fuzz/ours.ts';
import { explain, table, unknownIn } from '../fuzz/report.ts';
import { describe as describeCase, fuzz, judge } from '../fuzz/run.ts';
import { judgesOfSuite } from './servers/x509-judges.ts';

const CASES = Number(process.env.MESHCERT_FUZZ_CASES ?? 20_000);
/** Sets of CRLs; each is used in two handshakes of a real Envoy. */
const CRL_CASES = Math.min(CASES, 1_000);
/** The same cases each time; `npm run fuzz -- --seed N` looks for new ones. */
const FROM = 3_000_000;
/** This many pairs that we accept go through a real handshake between two Envoys. */
const ANSWERED = 300;

describe('signed certificates that differ from good ones', () => {
  const judges = judgesOfSuite();

  it('are accepted by us only if OpenSSL, Go and Envoy accept them, except for the kinds in docs/reference/verification.md', async (t) => {
    const result = await fuzz({ judges, cases: CASES, from: FROM, notLoaded });
    for (const line of table(result).split('\n')) t.diagnostic(line);
    assert.ok(result.accepted.ours > CASES / 10, 'nearly nothing was accepted');
    assert.equal(unknownIn(result), 0, await explain(result, judges));
  });

  for (const [when, isGood] of [
    ['before', false],
    ['after', true],
  ] as const) {
    it(`are ${isGood ? 'accepted' : 'refused'} by us, OpenSSL and Envoy with another root of one name ${when} theirs, and no key identifier`, async () => {
      const labels = [
        `a twin of the root, of another key, ${when} it`,
        ...['leaf', 'intermediate'].map((role) => `no authority key id @${role}`),
      ];
      const cases = [1, 2, 4, 6].map((seed) => makeCase(seed, Date.now(), labels));
      for (const one of cases) {
        const { ours, openssl, go } = await judge(one, judges);
        assert.deepEqual(
          [ours.ok, openssl.ok, go.ok],
          [isGood, isGood, true],
          describeCase({ at: one, ours, openssl, go }),
        );
      }
      assert.equal((await notAnswered(cases)).size, isGood ? 0 : cases.length);
    });
  }

  it('CRLs are published by us only if OpenSSL, Go and Envoy verify upstreams by them', async (t) => {
    const result = await fuzzCrls(CRL_CASES, FROM, judges.go);
    for (const line of crlTable(result).split('\n')) t.diagnostic(line);
    assert.ok(result.accepted > CRL_CASES / 10, 'nearly nothing was accepted');
    assert.deepEqual(unknownCrls(result).map(describeCrl), []);
  });

  it('a delta CRL makes Envoy refuse every upstream, and a complete one only the revoked', async () => {
    const labels = [[], ['a delta indicator, critical @root'], ['a delta indicator, critical @intermediate']];
    const cases = labels.map((changes, seed) => makeCrlCase(seed, Date.now(), changes));
    const [complete, ...deltas] = await crlsAtEnvoy(cases);
    assert.equal(complete, 'used');
    for (const delta of deltas) assert.match(delta, /^the good one: 503.*the revoked one: 503/);
  });

  it('reach the upstream through a real Envoy if we accept them', async () => {
    const accepted: Case[] = [];
    for (let seed = FROM; accepted.length < ANSWERED; seed++) {
      const one = makeCase(seed, Date.now());
      if ((await opinionOn(one, Date.now())).ok) accepted.push(one);
    }
    const refused = await notAnswered(accepted);
    assert.deepEqual(
      [...refused].map(([{ seed, labels }, why]) => `seed ${seed}: ${labels.join(' + ')}: ${why}`),
      [],
    );
  });
});
