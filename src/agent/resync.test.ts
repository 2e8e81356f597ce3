import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { silentLog } from '../mesh/log.ts';
import { resyncRegularly } from './resync.ts';

/** `resyncRegularly` at noon, on timers of its own; node-cron knows only those of Node.js. */
async function start(t: TestContext, { leads = true, fails = false, after = 10_000 } = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: Date.parse('2026-01-01T12:00:00Z') });
  const clock = new FakeClock();
  const stop = new AbortController();
  let count = 0;
  const resync = () => {
    count += 1;
    if (fails) throw new Error('the API server is away');
  };
  const ended = resyncRegularly({ clock, log: silentLog, leads: () => leads, resync }, stop.signal);
  await clock.advance(after);
  return {
    ended,
    stop: () => stop.abort(new Error('test ended')),
    async pass(minutes: number): Promise<number> {
      for (let second = 0; second < minutes * 60; second++) {
        t.mock.timers.tick(1_000);
        await settle();
      }
      return count;
    },
  };
}

describe('resyncRegularly', () => {
  it('resyncs once in each ten minutes, up to two minutes late', async (t) => {
    const { pass, stop, ended } = await start(t);
    assert.equal(await pass(9), 0);
    assert.equal(await pass(4), 1);
    assert.equal(await pass(6), 1);
    assert.equal(await pass(4), 2);
    stop();
    await ended;
    assert.equal(await pass(30), 2);
  });

  it('does nothing where nothing is led', async (t) => {
    const { pass, stop, ended } = await start(t, { leads: false });
    assert.equal(await pass(23), 0);
    stop();
    await ended;
  });

  it('continues after a resync that failed', async (t) => {
    const { pass, stop, ended } = await start(t, { fails: true });
    assert.equal(await pass(23), 2);
    stop();
    await ended;
  });

  it('ends before it began', async (t) => {
    const { pass, stop, ended } = await start(t, { after: 1_000 });
    stop();
    await ended;
    assert.equal(await pass(23), 0);
  });
});
