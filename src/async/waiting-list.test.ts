import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { type Waiting, WaitingList } from './limits.ts';

/** Admits callers while `open`, and those with `urgent` always. */
function gate(clock?: FakeClock) {
  const state = { open: false, lookInMs: undefined as number | undefined, looks: 0 };
  const list = new WaitingList<string, string>((waiting: Iterable<Waiting<string, string>>) => {
    state.looks += 1;
    for (const { about, admit } of waiting) if (state.open || about === 'urgent') admit(`turn of ${about}`);
    return state.lookInMs;
  }, clock);
  return { list, state };
}

test('callers that may go are admitted in order of arrival, and the others stay', async () => {
  const { list, state } = gate();
  const { signal } = new AbortController();
  const order: string[] = [];
  const turns = ['a', 'urgent', 'b'].map((about) => list.join(about, signal).then((turn) => order.push(turn)));
  await settle();
  assert.deepEqual([order, list.size], [['turn of urgent'], 2]);
  state.open = true;
  list.look();
  await Promise.all(turns);
  assert.deepEqual(order, ['turn of urgent', 'turn of a', 'turn of b']);
  assert.equal(getEventListeners(signal, 'abort').length, 0);
});

test('a caller that gives up leaves, and the others are considered again', async () => {
  const { list, state } = gate();
  const leaving = new AbortController();
  const gone = list.join('a', leaving.signal);
  const { looks } = state;
  leaving.abort(new Error('enough'));
  await assert.rejects(gone, /enough/);
  assert.equal(list.size, 0);
  await assert.rejects(list.join('b', leaving.signal), /enough/);
  void list.join('c', new AbortController().signal);
  assert.equal(state.looks, looks + 1);
});

test('it checks again after the requested time, once, and leaves no timer when closed', async () => {
  const clock = new FakeClock();
  const { list, state } = gate(clock);
  state.lookInMs = 1000;
  const { signal } = new AbortController();
  const turn = list.join('a', signal);
  void list.join('b', signal);
  assert.equal(clock.sleeping, 1);
  state.open = true;
  await clock.advance(1000);
  assert.equal(await turn, 'turn of a');
  assert.equal(clock.sleeping, 0);
  state.open = false;
  void list.join('c', signal);
  assert.equal(clock.sleeping, 1);
  list.close();
  assert.equal(clock.sleeping, 0);
});

test('adds one listener to a signal for all callers that share it, and removes it with the last', async () => {
  const { list, state } = gate();
  const [shared, other] = [new AbortController(), new AbortController()];
  const listeners = () => [shared, other].map(({ signal }) => getEventListeners(signal, 'abort').length);
  shared.signal.addEventListener('abort', () => {}, { once: true });
  const order: string[] = [];
  const join = (about: string, { signal }: AbortController) =>
    list.join(about, signal).then(
      () => order.push(about),
      (error: Error) => order.push(`${about}: ${error.message}`),
    );
  const turns = Array.from({ length: 1_000 }, (_, at) => join(`${at}`, at === 999 ? other : shared));
  assert.deepEqual([listeners(), list.size], [[2, 1], 1_000]);
  const { looks } = state;
  shared.abort(new Error('enough'));
  await settle();
  assert.deepEqual([listeners(), list.size, state.looks], [[0, 1], 1, looks + 1]);
  assert.deepEqual(
    order,
    Array.from({ length: 999 }, (_, at) => `${at}: enough`),
  );
  state.open = true;
  list.look();
  await Promise.all(turns);
  assert.deepEqual([listeners(), order.at(-1)], [[0, 0], '999']);
});
