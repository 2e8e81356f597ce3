import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa, SERVER_AUTH } from '../../sandbox/tls/ca.ts';
import { type Preflight, preflightKey } from '../../src/core/preflight.ts';
import { verify } from '../../src/core/verify.ts';
import { opensslPreflight } from '../../src/preflight/preflight.ts';
import { AgentWorld } from '../support/agent-world.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { TOY_ID } from '../support/toy-mesh.ts';

const REFUSED = { ok: false, code: 'ERR_VERIFY_PREFLIGHT', message: 'OpenSSL refuses the pair: unhandled' } as const;
const writes = (world: AgentWorld) =>
  world.api.requests.entries.filter(({ verb }) => verb === 'create' || verb === 'patch').length;

describe('the preflight handshake', () => {
  it('decides last: nothing is published before it was accepted', async () => {
    await using world = await AgentWorld.start();
    let isGood = false;
    world.preflight = async () => (isGood ? { ok: true } : REFUSED);
    world.run();
    await world.untilCode('ERR_VERIFY_PREFLIGHT');
    assert.equal(world.condition('Ready')?.status, 'False');
    assert.equal(await world.secret('istio-identity'), undefined);
    assert.equal(await world.secret('istio-ca'), undefined);
    isGood = true;
    await world.until('the pair', async () => (await world.secret('istio-identity')) !== undefined, 5_000);
  });

  it('is made once for each leaf and bundle, and never for what is published', async () => {
    await using world = await AgentWorld.start();
    const asked: string[] = [];
    world.preflight = async (pair, bundle) => {
      asked.push(preflightKey(pair, bundle));
      return { ok: true };
    };
    world.run();
    await world.untilReady();
    const first = world.status?.fingerprint;
    assert.equal(asked.length, 1);
    await world.until('the second leaf', () => world.status?.fingerprint !== first, 60_000);
    assert.equal(asked.length, 2);
    await world.stop();
    world.run();
    await world.untilReady();
    assert.equal(asked.length, 2);
    assert.equal(new Set(asked).size, 2);
  });

  for (const [what, preflight] of [
    ['refuses', async () => REFUSED],
    ['cannot be made', async () => ({ ...REFUSED, code: 'ERR_VERIFY_PREFLIGHT_FAILED' }) as const],
  ] as const satisfies readonly (readonly [string, Preflight])[]) {
    it(`keeps the last good pair when it ${what}, and names its code`, async () => {
      await using world = await AgentWorld.start();
      world.run();
      await world.untilReady();
      const first = await world.leaf();
      const before = writes(world);
      world.preflight = preflight;
      world.agent?.reconcilers.find('emissary', 'istio')?.renew();
      const verdict = await preflight();
      await world.untilCode(verdict.code);
      assert.equal(await world.leaf(), first);
      assert.equal(writes(world), before);
      assert.equal(world.condition('Ready')?.status, 'True');
      world.preflight = async () => ({ ok: true });
      await world.until('the next leaf', async () => (await world.leaf()) !== first, 10_000);
    });
  }

  it('keeps the last good bundle when the pair is refused under the next one', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    const { bundle } = await world.published();
    world.preflight = async (_pair, roots) => (roots.length > 1 ? REFUSED : { ok: true });
    const { ca } = world.mesh;
    world.mesh.rotate(ca, [ca.root, SandboxCa.root({ clock: world.clock, name: 'Next' }).certificate]);
    await world.untilCode('ERR_VERIFY_PREFLIGHT');
    assert.deepEqual(
      (await world.published()).bundle.map(({ fingerprint }) => fingerprint),
      bundle.map(({ fingerprint }) => fingerprint),
    );
  });

  it('finds what only OpenSSL refuses: it follows the first matching issuer, and not the next', async () => {
    const clock = new FakeClock(Date.now());
    await using world = await AgentWorld.start({}, clock);
    world.preflight = opensslPreflight();
    const { ca } = world.mesh;
    // OpenSSL's clock is behind the one of this test.
    const leaf = { uris: [TOY_ID], notBeforeSkewMs: 3_600_000 };
    world.mesh.answer = (good) => ({ ...good, ...ca.identity(leaf) });
    world.run();
    await world.untilReady();
    const first = await world.leaf();
    const crossed = ca.intermediate({ name: 'rival', notBeforeSkewMs: 3_600_000 });
    const lame = SandboxCa.root({ name: 'lame', clock, notBeforeSkewMs: 3_600_000, profile: { eku: [SERVER_AUTH] } });
    world.mesh.answer = () => {
      const identity = crossed.identity(leaf);
      const [end] = identity.chain;
      assert.ok(end);
      const answer = {
        ...identity,
        chain: [end, lame.crossSign(crossed, { notBefore: clock.now() - 3_600_000 }), crossed.certificate],
        roots: [lame.certificate, ca.root],
      };
      assert.ok(verify(answer, answer.roots, { form: 'spiffe' }, clock.now()).ok);
      return answer;
    };
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.untilCode('ERR_VERIFY_PREFLIGHT');
    assert.match(world.status?.lastError?.message ?? '', /unsuitable certificate purpose/);
    assert.equal(await world.leaf(), first);
  });
});

describe('a certificate that is valid some seconds later', () => {
  it('is published then, and the status says when', async () => {
    await using world = await AgentWorld.start();
    const judgedAt: number[] = [];
    world.preflight = async () => {
      judgedAt.push(world.clock.now());
      return { ok: true };
    };
    let validFrom = 0;
    world.mesh.answer = () => {
      // Certificates have whole seconds.
      validFrom = Math.ceil(world.clock.now() / 1_000) * 1_000 + 25_000;
      return world.mesh.ca.identity({ uris: [TOY_ID], notBefore: validFrom });
    };
    world.run();
    await world.untilCode('ERR_VERIFY_NOT_YET_VALID');
    assert.match(world.status?.lastError?.message ?? '', new RegExp(new Date(validFrom).toISOString()));
    assert.equal(await world.secret('istio-identity'), undefined);
    await world.until('the pair', async () => (await world.secret('istio-identity')) !== undefined, 500);
    assert.ok(
      judgedAt.every((at) => at >= validFrom),
      'OpenSSL was asked too early',
    );
    assert.ok(world.clock.now() < validFrom + 2_000, 'it was published too late');
    await world.untilReady();
    assert.equal(world.condition('Degraded')?.status, 'False');
    assert.equal(world.mesh.issued, 1);
  });

  it('is not waited for if the clock skew is larger', async () => {
    await using world = await AgentWorld.start();
    world.mesh.answer = () => world.mesh.ca.identity({ uris: [TOY_ID], notBefore: world.clock.now() + 60_000 });
    world.run();
    await world.untilCode('ERR_VERIFY_NOT_YET_VALID');
    assert.match(world.status?.lastError?.message ?? '', /compare this clock with the issuer's/);
  });
});
