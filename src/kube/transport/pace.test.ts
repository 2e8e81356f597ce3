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
    using turn = pace.takeNow(true) ?? (await pace.take(true, new AbortController().signal));
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
