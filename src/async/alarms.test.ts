import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Alarms } from './alarms.ts';

/** One timer whose time stands still until it is moved. */
class Hand {
  time = 0;
  set = 0;
  #due: { at: number; act: () => void } | undefined;

  readonly now = (): number => this.time;

  readonly wake = (ms: number, act: () => void): (() => void) => {
    assert.equal(this.#due, undefined, 'there is one timer');
    const due = { at: this.time + ms, act };
    this.#due = due;
    this.set += 1;
    return () => {
      if (this.#due === due) this.#due = undefined;
    };
  };

  get isSet(): boolean {
    return this.#due !== undefined;
  }

  /** Rings as often as the timer is due by then. */
  moveTo(time: number): void {
    for (let due = this.#due; due && due.at <= time; due = this.#due) {
      this.time = Math.max(this.time, due.at);
      this.#due = undefined;
      due.act();
    }
    this.time = Math.max(this.time, time);
  }
}

test('alarms ring in the order of their times, each once, none that was taken back', () => {
  const deed = fc.oneof(
    fc.record({ what: fc.constant('after' as const), ms: fc.integer({ min: -1, max: 60 }) }),
    fc.record({ what: fc.constant('cancel' as const), which: fc.nat(30) }),
    fc.record({ what: fc.constant('wait' as const), ms: fc.nat(20) }),
  );
  fc.assert(
    fc.property(fc.array(deed, { maxLength: 60 }), (deeds) => {
      const hand = new Hand();
      const alarms = new Alarms(hand);
      const cancels: (() => void)[] = [];
      const rang: number[] = [];
      const wanted: { id: number; due: number; state: 'waits' | 'over' }[] = [];
      const expected: number[] = [];
      for (const deed of deeds) {
        if (deed.what === 'after') {
          const id = wanted.length;
          wanted.push({ id, due: hand.time + Math.max(0, deed.ms), state: 'waits' });
          cancels.push(alarms.after(deed.ms, () => rang.push(id)));
        } else if (deed.what === 'cancel') {
          cancels[deed.which]?.();
          const one = wanted[deed.which];
          if (one) one.state = 'over';
        } else {
          hand.moveTo(hand.time + deed.ms);
          const due = wanted.filter(({ due, state }) => state === 'waits' && due <= hand.time);
          due.sort((a, b) => a.due - b.due || a.id - b.id);
          for (const one of due) one.state = 'over';
          expected.push(...due.map(({ id }) => id));
        }
        assert.deepEqual(rang, expected);
        assert.equal(
          hand.isSet,
          wanted.some(({ state }) => state === 'waits'),
          'nothing keeps the process alive',
        );
      }
    }),
    { numRuns: 500 },
  );
});

test('an alarm that is set while one rings waits for the next round', () => {
  const hand = new Hand();
  const alarms = new Alarms(hand);
  const rang: string[] = [];
  alarms.after(5, () => {
    rang.push('first');
    alarms.after(0, () => rang.push('next'));
  });
  alarms.after(5, () => rang.push('second'));
  hand.moveTo(5);
  assert.deepEqual(rang, ['first', 'second', 'next']);
});

test('an alarm that throws keeps no other from ringing', () => {
  const hand = new Hand();
  const alarms = new Alarms(hand);
  const rang: string[] = [];
  alarms.after(1, () => {
    throw new Error('of its own');
  });
  alarms.after(1, () => rang.push('other'));
  assert.throws(() => hand.moveTo(1), /of its own/);
  hand.moveTo(2);
  assert.deepEqual(rang, ['other']);
});

test('a thousand waits set the timer a few times', () => {
  const hand = new Hand();
  const alarms = new Alarms(hand);
  const cancels = Array.from({ length: 1000 }, (_, at) => alarms.after(10 + ((at * 7919) % 1000), () => {}));
  for (const cancel of cancels) cancel();
  assert.ok(hand.set < 20, `${hand.set} times`);
  assert.ok(!hand.isSet);
});
