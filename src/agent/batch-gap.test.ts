import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { emissary } from '../gateway/emissary/gateway.ts';
import { FIELD_MANAGER, type KubeObject } from '../objects/objects.ts';
import { BatchGap, BatchGaps } from './write-order.ts';

const SPACING_MS = emissary.batchGapMs;
const GATEWAYS = [emissary];

const signal = new AbortController().signal;

/** Writes that take no time, in the order in which they were admitted. */
function recording(gap: BatchGap) {
  const order: string[] = [];
  const write = (side: 'secret' | 'gateway') => {
    const before = side === 'secret' ? gap.beforeSecret(signal) : gap.beforeGateway('emissary', signal);
    void before.then((turn) => {
      order.push(side);
      turn[Symbol.dispose]();
    });
  };
  return { order, write };
}

describe('the batch gap', () => {
  it('lets writes of one side run together and at once', async () => {
    const gap = new BatchGap(new FakeClock(), GATEWAYS);
    using _first = await gap.beforeSecret(signal);
    using _second = await gap.beforeSecret(signal);
  });

  it('holds the other side until 2 s after the last write was answered', async () => {
    const clock = new FakeClock();
    const gap = new BatchGap(clock, GATEWAYS);
    const secret = await gap.beforeSecret(signal);
    let admitted = false;
    const gateway = gap.beforeGateway('emissary', signal).then((turn) => {
      admitted = true;
      return turn;
    });
    await clock.advance(60_000);
    assert.equal(admitted, false, 'the write has not been answered yet');
    secret[Symbol.dispose]();
    await clock.advance(SPACING_MS - 1);
    assert.equal(admitted, false);
    await clock.advance(1);
    assert.equal(admitted, true);
    (await gateway)[Symbol.dispose]();
  });

  it('serves a Secret that waits before later objects of the gateway', async () => {
    const clock = new FakeClock();
    const gap = new BatchGap(clock, GATEWAYS);
    const first = await gap.beforeGateway('emissary', signal);
    const { order, write } = recording(gap);
    write('secret');
    write('gateway');
    first[Symbol.dispose]();
    await clock.advance(SPACING_MS);
    assert.deepEqual(order, ['secret']);
    await clock.advance(SPACING_MS);
    assert.deepEqual(order, ['secret', 'gateway']);
  });

  it('serves all waiting writes of a side in one turn, whatever their order in the queue', async () => {
    const clock = new FakeClock();
    const gap = new BatchGap(clock, GATEWAYS);
    const first = await gap.beforeGateway('emissary', signal);
    const { order, write } = recording(gap);
    for (let n = 0; n < 50; n++) {
      write('secret');
      write('gateway');
    }
    first[Symbol.dispose]();
    await clock.advance(2 * SPACING_MS);
    assert.deepEqual(order, [...Array(50).fill('secret'), ...Array(50).fill('gateway')]);
  });

  it('lets further Secrets go while objects of the gateway wait for the gap after theirs', async () => {
    const clock = new FakeClock();
    const gap = new BatchGap(clock, GATEWAYS);
    const { order, write } = recording(gap);
    for (let n = 0; n < 3; n++) {
      write('secret');
      await settle();
      write('gateway');
      await clock.advance(SPACING_MS - 1);
    }
    assert.deepEqual(order, ['secret', 'secret', 'secret']);
    await clock.advance(1);
    assert.deepEqual(order.slice(3), ['gateway', 'gateway', 'gateway']);
  });

  it('lets Secrets go first no longer than five seconds', async () => {
    const clock = new FakeClock();
    const gap = new BatchGap(clock, GATEWAYS);
    const { order, write } = recording(gap);
    write('secret');
    await settle();
    write('gateway');
    for (let n = 0; n < 4; n++) {
      await clock.advance(1_666);
      write('secret');
    }
    assert.deepEqual(order, ['secret', 'secret', 'secret', 'secret']);
    await clock.advance(SPACING_MS);
    await clock.advance(SPACING_MS);
    assert.deepEqual(order.slice(4), ['gateway', 'secret']);
  });

  it('forgets a waiter that gave up', async () => {
    const clock = new FakeClock();
    const gap = new BatchGap(clock, GATEWAYS);
    const first = await gap.beforeSecret(signal);
    const impatient = new AbortController();
    const gateway = gap.beforeGateway('emissary', impatient.signal);
    const reason = new Error('enough');
    impatient.abort(reason);
    await assert.rejects(gateway, reason);
    using _second = await gap.beforeSecret(signal);
    first[Symbol.dispose]();
    await settle();
    assert.equal(clock.sleeping, 0);
  });

  describe('in a process that has written nothing', () => {
    const written = (kind: 'Secret' | 'TLSContext', at: number, manager = FIELD_MANAGER): KubeObject => ({
      apiVersion: kind === 'Secret' ? 'v1' : 'getambassador.io/v3alpha1',
      kind,
      metadata: {
        name: 'istio',
        namespace: 'emissary',
        managedFields: [{ manager, operation: 'Apply', time: `${new Date(at).toISOString().slice(0, 19)}Z` }],
      },
    });

    for (const [what, agoMs, waits] of [
      ['just now', 0, true],
      ['less than 2 s ago', 1_900, true],
      ['longer ago than 2 s and what the rounding of its time hides', 3_000, false],
      ['by a clock that is ahead of ours', -60_000, true],
    ] as const) {
      it(`${waits ? 'waits for' : 'ignores'} the other side where it was written ${what}`, async () => {
        const clock = new FakeClock();
        const gap = new BatchGap(clock, GATEWAYS);
        gap.saw(written('Secret', clock.now() - agoMs));
        let admitted = false;
        const gateway = gap.beforeGateway('emissary', signal).then(() => {
          admitted = true;
        });
        await settle();
        assert.equal(admitted, !waits);
        await clock.advance(SPACING_MS);
        await gateway;
      });
    }

    it('continues with the side that was written last, and ignores writes of others', async () => {
      const clock = new FakeClock();
      const gap = new BatchGap(clock, GATEWAYS);
      gap.saw(written('TLSContext', clock.now(), 'kubectl'));
      gap.saw(written('Secret', clock.now()));
      using _turn = await gap.beforeSecret(signal);
    });

    it('waits on either side when it cannot tell which was written last', async () => {
      const clock = new FakeClock();
      const gap = new BatchGap(clock, GATEWAYS);
      for (const kind of ['Secret', 'TLSContext'] as const) gap.saw(written(kind, clock.now() + 60_000));
      const admitted: string[] = [];
      void gap.beforeSecret(signal).then(() => admitted.push('secret'));
      await settle();
      assert.deepEqual(admitted, []);
      await clock.advance(SPACING_MS);
      assert.deepEqual(admitted, ['secret']);
    });

    it('does not wait longer because of a write during the wait', async () => {
      const clock = new FakeClock();
      const gap = new BatchGap(clock, GATEWAYS);
      gap.saw(written('TLSContext', clock.now()));
      const secret = gap.beforeSecret(signal);
      await clock.advance(SPACING_MS / 2);
      gap.saw(written('TLSContext', clock.now()));
      await clock.advance(SPACING_MS / 2);
      (await secret)[Symbol.dispose]();
    });
  });

  it('is separate for each gateway', () => {
    const spacings = new BatchGaps(new FakeClock(), GATEWAYS);
    assert.equal(spacings.of('emissary'), spacings.of('emissary'));
    assert.notEqual(spacings.of('emissary'), spacings.of('edge'));
  });

  it('never lets the two sides meet, and everyone gets a turn', async () => {
    const write = fc.record({
      side: fc.constantFrom('secret' as const, 'gateway' as const),
      after: fc.integer({ min: 0, max: 3000 }),
      takes: fc.integer({ min: 0, max: 3000 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(write, { minLength: 1, maxLength: 12 }), async (writes) => {
        const clock = new FakeClock();
        const gap = new BatchGap(clock, GATEWAYS);
        const done: { side: string; from: number; to: number }[] = [];
        const all = writes.map(async ({ side, after, takes }) => {
          await clock.sleep(after);
          const { signal } = new AbortController();
          const turn = await (side === 'secret' ? gap.beforeSecret(signal) : gap.beforeGateway('emissary', signal));
          const from = clock.monotonic();
          await clock.sleep(takes);
          done.push({ side, from, to: clock.monotonic() });
          turn[Symbol.dispose]();
        });
        for (let step = 0; done.length < writes.length && step < 200; step++) await clock.advance(1000);
        await Promise.all(all);
        for (const a of done) {
          for (const b of done) {
            if (a.side === b.side) continue;
            const gap = Math.max(a.from, b.from) - Math.min(a.to, b.to);
            assert.ok(gap >= SPACING_MS, JSON.stringify([a, b]));
          }
        }
      }),
      { numRuns: 40 },
    );
  });
});
