import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyedQueue } from './queue.ts';

function gated(concurrency?: number) {
  const started: string[] = [];
  const errors: unknown[] = [];
  const open: { key: string; finish: (error?: Error) => void }[] = [];
  const queue = new KeyedQueue<string>({
    run: (key) =>
      new Promise((resolve, reject) => {
        started.push(key);
        open.push({ key, finish: (error) => (error ? reject(error) : resolve()) });
      }),
    onError: (error) => errors.push(error),
    ...(concurrency === undefined ? {} : { concurrency }),
  });
  const finish = async (key: string, error?: Error) => {
    const at = open.findIndex((run) => run.key === key);
    open.splice(at, 1)[0]?.finish(error);
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { queue, started, errors, finish };
}

test('one key runs once at a time and what is added meanwhile becomes one more run', async () => {
  const { queue, started, finish } = gated();
  for (let times = 0; times < 5; times++) queue.add('a');
  assert.deepEqual(started, ['a']);
  assert.equal(queue.length, 1);
  await finish('a');
  assert.deepEqual(started, ['a', 'a']);
  await finish('a');
  await queue.idle();
  assert.deepEqual(started, ['a', 'a']);
});

test('a slow key does not keep others waiting', async () => {
  const { queue, started, finish } = gated();
  queue.add('slow');
  queue.add('quick');
  assert.deepEqual(started, ['slow', 'quick']);
  await finish('quick');
  queue.add('quick');
  assert.deepEqual(started, ['slow', 'quick', 'quick']);
});

test('no more keys run at a time than allowed, and the others follow in order', async () => {
  const { queue, started, finish } = gated(2);
  for (const key of ['a', 'b', 'c', 'd']) queue.add(key);
  assert.deepEqual(started, ['a', 'b']);
  await finish('b');
  assert.deepEqual(started, ['a', 'b', 'c']);
});

test('a run that throws is told of and does not stop the queue', async () => {
  const { queue, started, errors, finish } = gated();
  queue.add('a');
  await finish('a', new Error('broken'));
  queue.add('a');
  assert.deepEqual(started, ['a', 'a']);
  assert.equal(errors.length, 1);
});

test('idle resolves at once where nothing runs, and else with the last run', async () => {
  const { queue, finish } = gated();
  await queue.idle();
  queue.add('a');
  let idle = false;
  const waiting = queue.idle().then(() => {
    idle = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(idle, false);
  await finish('a');
  await waiting;
  assert.equal(idle, true);
});
