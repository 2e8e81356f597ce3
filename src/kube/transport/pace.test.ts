import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Calls } from '../../../test/support/calls.ts';
import { FakeClock, settle } from '../../../test/support/fake-clock.ts';
import { Pace } from './transport.ts';

const WRITES = 500;

it('looks at each write a few times, however many wait', async () => {
  const pace = new Pace({ clock: new FakeClock(), most: 8 });
  using calls = await Calls.counted();
  const asked = { '#isFull': 'src/kube/transport/transport.ts' };
  const order: number[] = [];
  const write = async (at: number) => {
    using turn = pace.takeNow('write') ?? (await pace.take('write', new AbortController().signal));
    order.push(at);
    await settle();
    turn.answered(200, undefined);
  };
  await calls.take(asked);
  const numbers = Array.from({ length: WRITES }, (_, at) => at);
  await Promise.all(numbers.map(write));
  const { '#isFull': looks } = await calls.take(asked);
  assert.deepEqual(order, numbers);
  assert.ok(looks > 0 && looks <= 4 * WRITES, `${looks} looks for ${WRITES} writes`);
});

it('lets a read go while as many watches open as are allowed, and the other way round', () => {
  const pace = new Pace({ clock: new FakeClock(), most: 2 });
  const turns = [pace.takeNow('watch'), pace.takeNow('watch'), pace.takeNow('read'), pace.takeNow('read')];
  assert.ok(turns.every(Boolean));
  assert.equal(pace.takeNow('watch'), undefined);
  turns[0]?.[Symbol.dispose]();
  assert.ok(pace.takeNow('watch'));
  assert.equal(pace.takeNow('read'), undefined);
});
