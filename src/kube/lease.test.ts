import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type Clock, sleepOn } from '../async/clock.ts';
import { silentLog } from '../mesh/log.ts';
import type { Kube } from './api.ts';
import { connect } from './client.ts';
import { campaign, LEASE_DURATIONS, type LeaseKube, type LeaseTerm, leaseSpec, microTime, readLease } from './lease.ts';
import { RESOURCES } from './resources.ts';

interface Rig {
  readonly api: KubeApi;
  readonly clock: FakeClock;
  readonly kube: Kube;
  /** Joins the election; with a clock of its own it can be frozen. */
  join(identity: string, clock?: Clock): { leadership: LeaseTerm; stop: AbortController };
  /**
   * Moves the clock in small steps, between which each campaign makes progress, until `holds` returns true; returns the
   * milliseconds.
   */
  until(holds: () => boolean, limitMs?: number): Promise<number>;
}

async function rig(test: TestContext): Promise<Rig> {
  const api = await startKubeApi({ namespaces: ['emissary'], tls: false });
  const clock = new FakeClock();
  const kubes: Kube[] = [];
  const stops: AbortController[] = [];
  const open = { requests: 0 };
  const connectWith = (own: Clock) => {
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'lease-test/1', clock: own });
    kubes.push(kube);
    return kube;
  };
  test.after(async () => {
    for (const stop of stops) stop.abort();
    for (const kube of kubes) kube.close();
    await api.stop();
  });
  return {
    api,
    clock,
    kube: connectWith(clock),
    join(identity, own = clock) {
      const stop = new AbortController();
      stops.push(stop);
      const options = {
        namespace: 'emissary',
        name: 'meshcert',
        identity,
        clock: own,
        random: () => 0.5,
        log: silentLog,
      };
      return { leadership: campaign(counted(connectWith(own), open), options, stop.signal), stop };
    },
    async until(holds, limitMs = 60_000) {
      let passed = 0;
      await idle(open);
      while (!holds()) {
        assert.ok(passed < limitMs, `not within ${limitMs} ms`);
        await clock.advance(STEP_MS);
        passed += STEP_MS;
        await idle(open);
      }
      return passed;
    },
  };
}

const STEP_MS = 100;

/** Counts the requests that are not answered yet. */
function counted(kube: Kube, open: { requests: number }): LeaseKube {
  const count = async <T>(request: Promise<T>): Promise<T> => {
    open.requests += 1;
    return await request.finally(() => {
      open.requests -= 1;
    });
  };
  return {
    get: (...args) => count(kube.get(...args)),
    create: (...args) => count(kube.create(...args)),
    replace: (...args) => count(kube.replace(...args)),
    watch: (...args) => kube.watch(...args),
  };
}

/** Resolves once no request is in flight. */
async function idle(open: { readonly requests: number }): Promise<void> {
  for (let quiet = 0; quiet < 3; quiet++) {
    await new Promise(setImmediate);
    if (open.requests > 0) quiet = -1;
  }
}

/** A process that is stopped: its clocks continue, its event loop does not. */
class Frozen implements Clock {
  readonly #clock: FakeClock;
  frozen = false;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.now();
  }

  monotonic(): number {
    return this.#clock.monotonic();
  }

  after(ms: number, act: () => void): () => void {
    return this.#clock.after(ms, () => {
      if (!this.frozen) act();
    });
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }
}

describe('a campaign for a Lease', { timeout: 60_000 }, () => {
  it('is won by the first, and the other follows', async (test) => {
    const { join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    const two = join('two').leadership;
    await until(() => two.holder === one.identity);
    for (let round = 0; round < 20; round++) {
      await until(() => one.isLeader() && !two.isLeader());
    }
    assert.match(one.identity, /^one_[0-9a-f-]{36}$/);
  });

  it('hands over within a second of a clean stop', async (test) => {
    const { join, until } = await rig(test);
    const one = join('one');
    await until(() => one.leadership.isLeader());
    const two = join('two').leadership;
    await until(() => two.holder === one.leadership.identity);
    one.stop.abort();
    await one.leadership.ended;
    assert.equal(one.leadership.isLeader(), false);
    const took = await until(() => two.isLeader());
    assert.ok(took <= 1_000, `${took} ms`);
  });

  it('hands over fifteen seconds after the last renewal, and never has two leaders', async (test) => {
    const { clock, join, until } = await rig(test);
    const process = new Frozen(clock);
    const one = join('one', process).leadership;
    await until(() => one.isLeader());
    const two = join('two').leadership;
    await until(() => two.holder === one.identity);
    process.frozen = true;
    const took = await until(() => {
      assert.ok(!(one.isLeader() && two.isLeader()), 'two leaders');
      return two.isLeader();
    });
    assert.ok(took <= LEASE_DURATIONS.leaseMs + STEP_MS, `${took} ms`);
    assert.equal(one.isLeader(), false);
  });

  it('ends the term of a holder that the API server no longer answers', async (test) => {
    const { api, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    const { term } = one;
    await api.outage(true);
    const held = await until(() => !one.isLeader());
    assert.ok(held <= LEASE_DURATIONS.renewDeadlineMs, `${held} ms`);
    await until(() => term?.aborted === true);
    assert.match(String(term?.reason), /no longer leading/);
    assert.equal(one.term, undefined);
    await api.outage(false);
    await until(() => one.isLeader());
    assert.notEqual(one.term, term);
  });

  it('ends the term of a holder whose requests hang', async (test) => {
    const { api, clock, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    api.fault({ latencyMs: 3_600_000, match: ({ plural }) => plural === 'leases' });
    const started = clock.monotonic();
    while (one.isLeader()) await clock.advance(STEP_MS);
    assert.ok(clock.monotonic() - started <= LEASE_DURATIONS.renewDeadlineMs);
  });

  it('wakes up from a suspend as a follower: the monotonic clock stood still, the wall clock did not', async (test) => {
    const { clock, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    clock.step(LEASE_DURATIONS.renewDeadlineMs);
    assert.equal(one.isLeader(), false);
    assert.equal(one.term, undefined);
    await until(() => one.isLeader());
  });

  it('notifies its subscribers when it leads again after a suspend, during which some stopped', async (test) => {
    const { clock, join, until } = await rig(test);
    const { leadership: one, stop } = join('one');
    let told = 0;
    const reading = (async () => {
      for await (const leading of one.changes()) if (leading) told += 1;
    })();
    await until(() => told === 1);
    clock.step(LEASE_DURATIONS.renewDeadlineMs);
    assert.equal(one.isLeader(), false);
    await until(() => told === 2);
    assert.equal(one.isLeader(), true);
    stop.abort();
    await reading;
  });

  it('is not fooled by a wall clock that goes back', async (test) => {
    const { api, clock, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    clock.step(-3_600_000);
    assert.equal(one.isLeader(), true);
    await api.outage(true);
    const held = await until(() => !one.isLeader());
    assert.ok(held <= LEASE_DURATIONS.renewDeadlineMs);
  });

  it('gives up the term at once when somebody else took the Lease', async (test) => {
    const { api, kube, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    const { items } = await kube.list(RESOURCES.leases, { namespace: 'emissary' });
    const [lease] = items;
    assert.ok(lease);
    api.put({ ...lease, spec: { ...(lease.spec as object), holderIdentity: 'thief' } });
    const held = await until(() => !one.isLeader());
    assert.ok(held <= 1.1 * LEASE_DURATIONS.retryMs);
    assert.equal(one.holder, 'thief');
  });

  it('continues to lead when a response was lost although the write succeeded', async (test) => {
    const { api, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    const { term } = one;
    api.fault({ times: 1, cut: 'after', match: ({ verb, plural }) => plural === 'leases' && verb === 'update' });
    const before = api.requests.count({ resource: 'leases' });
    await until(() => api.requests.count({ resource: 'leases' }) > before + 3);
    assert.equal(one.term, term);
    assert.equal(term?.aborted, false);
  });

  it('costs one request a renewal', async (test) => {
    const { api, clock, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    api.requests.reset();
    const start = clock.monotonic();
    await until(() => clock.monotonic() - start >= 30_000);
    assert.deepEqual(Object.keys(api.requests.counts()), ['update leases']);
  });

  it('costs a follower nothing while the holder renews', async (test) => {
    const { api, clock, join, until } = await rig(test);
    const one = join('one').leadership;
    await until(() => one.isLeader());
    const two = join('two').leadership;
    await until(() => two.holder === one.identity);
    api.requests.reset();
    const start = clock.monotonic();
    await until(() => clock.monotonic() - start >= 30_000);
    assert.deepEqual(Object.keys(api.requests.counts()), ['update leases']);
    assert.ok(api.requests.count({ resource: 'leases' }) <= 15, 'at most one in two seconds');
  });

  it('follows by reading where it may not watch', async (test) => {
    const { api, join, until } = await rig(test);
    api.fault({ status: 403, match: ({ verb, plural }) => plural === 'leases' && verb === 'watch' });
    const one = join('one');
    await until(() => one.leadership.isLeader());
    const two = join('two').leadership;
    await until(() => two.holder === one.leadership.identity);
    one.stop.abort();
    await one.leadership.ended;
    const took = await until(() => two.isLeader());
    assert.ok(took <= 1.1 * LEASE_DURATIONS.retryMs, `${took} ms`);
  });

  it('notifies its subscribers of each change', async (test) => {
    const { api, join, until } = await rig(test);
    const { leadership, stop } = join('one');
    const seen: boolean[] = [];
    const reading = (async () => {
      for await (const leading of leadership.changes()) seen.push(leading);
    })();
    await until(() => seen.at(-1) === true);
    await api.outage(true);
    await until(() => seen.at(-1) === false);
    await api.outage(false);
    await until(() => seen.at(-1) === true);
    stop.abort();
    await reading;
    assert.deepEqual(seen, [false, true, false, true]);
  });
});

describe('the record of a Lease', () => {
  it('has times with six digits', () => {
    assert.equal(microTime(Date.parse('2026-01-01T00:00:00.123Z')), '2026-01-01T00:00:00.123000Z');
  });

  it('reads back as it was written', () => {
    const record = {
      holder: 'a',
      durationMs: 10_000,
      acquiredAt: 1_700_000_000_001,
      renewedAt: 1_700_000_000_002,
      transitions: 3,
    };
    const lease = {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: 'x' },
      spec: leaseSpec(record),
    };
    assert.deepEqual(readLease(lease), record);
  });

  it('of an empty Lease has no holder', () => {
    const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'x' } };
    assert.equal(readLease(lease).holder, undefined);
    assert.equal(readLease({ ...lease, spec: { holderIdentity: '' } }).holder, undefined);
  });
});
