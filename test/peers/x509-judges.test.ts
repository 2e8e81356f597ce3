import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Case, makeCase } from '../fuzz/cases.ts';
import { type GoJudge, judgesOfSuite } from './servers/x509-judges.ts';

const HOUR = 3_600_000;

describe('the judges of certificates', () => {
  const judges = judgesOfSuite();

  const made = (...labels: string[]) => makeCase(1, Date.now(), labels);
  const pairOf = ({ chain, roots, key }: Case) => ({ chain, roots, key });
  const both = async (one: Case) => {
    const answers = [judges.go.judge({ ...pairOf(one), handshake: true }), judges.openssl.judge(pairOf(one))] as const;
    return Promise.all(answers);
  };

  it('accept a good pair, with every kind of key that a mesh uses', async () => {
    for (const label of [[], ['key rsa2048 @root'], ['key p384 @intermediate'], ['key rsa2048 @leaf']]) {
      assert.deepEqual(
        (await both(made(...label))).map(({ ok, reason }) => reason ?? ok),
        [true, true],
        label.join(),
      );
    }
  });

  it('both refuse what an upstream refuses, and say why', async () => {
    const bad: readonly (readonly [label: string, go: RegExp, openssl: RegExp])[] = [
      ['no CA flag @intermediate', /not authorized to sign|unknown authority/, /invalid CA certificate/],
      ['critical extension unknown @intermediate', /unhandled critical extension/, /unhandled critical extension/],
      ['extended usage server @intermediate', /incompatible key usage/, /unsuitable certificate purpose/],
      ['excluded URI "td.example" @root', /not authorized to sign for this name/, /excluded subtree violation/],
      ['path length 0 above two intermediates', /too many intermediates/, /path length constraint exceeded/],
      ['expired @leaf', /expired/, /certificate has expired/],
      ['another root alone', /unknown authority/, /unable to get local issuer certificate/],
      ['the key of another', /private key does not match public key/, /KEY_VALUES_MISMATCH/],
    ];
    for (const [label, fromGo, fromOpenssl] of bad) {
      const [one, other] = await both(made(label));
      assert.deepEqual([one.ok, other.ok], [false, false], label);
      assert.match(one.reason ?? '', fromGo, label);
      assert.match(other.reason ?? '', fromOpenssl, label);
    }
  });

  it('Go judges at the requested time, for the requested usage and name', async () => {
    const good = pairOf(made());
    const ask = async (more: Partial<Parameters<GoJudge['judge']>[0]>) => {
      const { ok, stage } = await judges.go.judge({ ...good, handshake: true, ...more });
      return stage ?? ok;
    };
    assert.equal(await ask({ at: Date.now() + 48 * HOUR }), 'verify');
    assert.equal(await ask({ at: Date.now() - 2 * HOUR }), 'verify');
    assert.equal(await ask({ uri: 'spiffe://td.example/ns/shop/sa/web' }), true);
    assert.equal(await ask({ uri: 'spiffe://td.example/ns/shop/sa/other' }), 'name');
    const server = pairOf(made('extended usage server @leaf'));
    assert.equal((await judges.go.judge(server)).ok, false);
    assert.equal((await judges.go.judge({ ...server, usages: ['server'] })).ok, true);
  });

  it('OpenSSL refuses a leaf that may not sign, which Go does not check', async () => {
    const [one, other] = await both(made('usage encipherment @leaf'));
    assert.equal(one.ok, true);
    assert.equal(other.reason, 'unsuitable certificate purpose');
  });
});
