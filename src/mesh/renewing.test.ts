import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { Trigger, Wake } from '../async/trigger.ts';
import type { Certificate } from '../pki/certificate.ts';
import type { Host, Issuer } from './adapter.ts';
import { MeshError } from './error.ts';
import { type Identity, leafOf } from './identity.ts';
import { silentLog } from './log.ts';
import { type RenewalPolicy, renewing } from './renewing.ts';

const HOUR = 3_600_000;

describe('renewing', () => {
  it('issues, waits until the leaf is due, and issues again', async () => {
    const world = new World();
    world.start();
    await world.settled();
    assert.equal(world.seen.length, 1);
    await world.clock.advance(0.59 * HOUR);
    assert.equal(world.issues, 1);
    await world.clock.advance(0.02 * HOUR);
    assert.equal(world.issues, 2);
    assert.notEqual(world.leaf(0), world.leaf(1));
    await world.stop();
  });

  it('yields the published identity and issues nothing until it is due', async () => {
    const world = new World();
    world.start({ current: world.identity() });
    await world.settled();
    assert.deepEqual([world.seen.length, world.issues], [1, 0]);
    await world.clock.advance(0.61 * HOUR);
    assert.equal(world.issues, 1);
    await world.stop();
  });

  it('issues at once when the published identity is past due', async () => {
    const world = new World();
    const current = world.identity();
    await world.clock.advance(0.7 * HOUR);
    world.start({ current });
    await world.settled();
    assert.equal(world.issues, 1);
    await world.stop();
  });

  it('reports each failure, waits as requested and never gives up', async () => {
    const world = new World();
    world.outage = true;
    world.start();
    await world.settled();
    await world.clock.advance(100_000);
    assert.ok(world.reports.length >= 5);
    assert.ok(world.reports.every((error) => error instanceof MeshError && error.code === 'ERR_MESH_UNREACHABLE'));
    world.outage = false;
    await world.clock.advance(100_000);
    assert.equal(world.seen.length, 1);
    await world.stop();
  });

  it('renews now when asked, past schedule and backoff', async () => {
    const world = new World();
    const wake = new Wake();
    world.start({ wake });
    await world.settled();
    wake.renew();
    await world.settled();
    assert.equal(world.issues, 2);
    world.outage = true;
    wake.renew();
    await world.settled();
    world.outage = false;
    wake.renew();
    await world.settled();
    assert.equal(world.seen.length, 3);
    await world.stop();
  });

  it('notices a clock that was stepped ahead when woken', async () => {
    const world = new World();
    const wake = new Wake();
    world.start({ wake });
    await world.settled();
    world.clock.step(2 * HOUR);
    wake.fire();
    await world.settled();
    assert.equal(world.issues, 2);
    await world.stop();
  });

  it('notices a stepped clock by itself within five minutes', async () => {
    const world = new World();
    world.start();
    await world.settled();
    world.clock.step(2 * HOUR);
    await world.clock.advance(5 * 60_000);
    assert.equal(world.issues, 2);
    await world.stop();
  });

  it('counts a refused answer as a failure and asks again soon', async () => {
    const world = new World();
    world.refusal = Object.assign(new Error('wrong key'), { code: 'ERR_VERIFY_KEY_MISMATCH' });
    world.start();
    await world.settled();
    assert.deepEqual([world.seen.length, world.issues, world.reports[0]], [0, 1, world.refusal]);
    world.refusal = undefined;
    await world.clock.advance(1000);
    assert.deepEqual([world.seen.length, world.issues], [1, 2]);
    await world.stop();
  });

  it('respects the budget on attempts', async () => {
    const world = new World();
    world.budgetMs = 60_000;
    world.start();
    await world.settled();
    assert.equal(world.issues, 0);
    world.budgetMs = 0;
    await world.clock.advance(60_000);
    assert.equal(world.issues, 1);
    await world.stop();
  });

  it('yields changed roots with the leaf that is current, then asks again within the spread', async () => {
    const world = new World({ withRoots: true });
    world.start();
    await world.settled();
    const next = SandboxCa.root({ clock: world.clock });
    world.nameRoots([world.ca.root, next.root]);
    await world.settled();
    assert.equal(world.leaf(-1), world.leaf(0));
    assert.deepEqual(fingerprints(world.seen.at(-1)?.roots), fingerprints([world.ca.root, next.root]));
    await world.clock.advance(world.policy.rootsSpreadMs);
    assert.equal(world.issues, 2);
    await world.clock.advance(0.3 * HOUR);
    assert.equal(world.issues, 2);
    await world.stop();
  });

  it('leaves the leaf alone when the issuer says that it is not stale', async () => {
    const world = new World({ withRoots: true, stale: () => undefined });
    world.start();
    await world.settled();
    world.nameRoots([world.ca.root, SandboxCa.root({ clock: world.clock }).root]);
    await world.settled();
    await world.clock.advance(0.3 * HOUR);
    assert.equal(world.issues, 1);
    await world.stop();
  });

  it('does not ask in a loop when answers carry a root that the mesh does not name', async () => {
    const world = new World({ withRoots: true });
    world.start();
    await world.settled();
    world.extraRoot = SandboxCa.root({ clock: world.clock }).root;
    world.nameRoots([world.ca.root, SandboxCa.root({ clock: world.clock }).root]);
    await world.settled();
    await world.clock.advance(0.5 * HOUR);
    assert.equal(world.issues, 2);
    assert.equal(world.seen.at(-1)?.roots.length, 3);
    await world.stop();
  });

  it('reopens the stream of roots after a failure', async () => {
    const world = new World({ withRoots: true });
    world.start();
    await world.settled();
    world.failRoots();
    await world.settled();
    await world.clock.advance(10_000);
    world.nameRoots([world.ca.root, SandboxCa.root({ clock: world.clock }).root]);
    await world.settled();
    assert.equal(world.seen.at(-1)?.roots.length, 2);
    await world.stop();
  });

  it('ends at once when aborted and leaves no timer behind', async () => {
    const world = new World({ withRoots: true });
    world.start({ wake: new Wake() });
    await world.settled();
    await world.stop();
    assert.equal(world.clock.sleeping, 0);
  });
});

const fingerprints = (roots: readonly Certificate[] | undefined) => (roots ?? []).map((root) => root.fingerprint);

class World {
  readonly clock = new FakeClock();
  readonly ca = SandboxCa.root({ clock: this.clock });
  readonly seen: Identity[] = [];
  readonly reports: Error[] = [];
  readonly policy: RenewalPolicy = {
    renewAt: (leaf) => leaf.notBefore + 0.6 * (leaf.notAfter - leaf.notBefore),
    retryDelay: (attempt) => 1000 * attempt,
    rootsRetryDelay: (attempt) => 1000 * attempt,
    succeeded: () => {},
    admit: () => this.budgetMs,
    refuse: async () => this.refusal,
    rootsSpreadMs: 30_000,
  };
  issues = 0;
  outage = false;
  budgetMs = 0;
  refusal: Error | undefined;
  extraRoot: Certificate | undefined;
  #abort = new AbortController();
  #done: Promise<void> | undefined;
  #named: readonly Certificate[] = [this.ca.root];
  #rootsChanged = new Trigger();
  #rootsFail = false;
  readonly #issuer: Issuer;

  constructor(options: { withRoots?: boolean; stale?: (current: Identity) => string | undefined } = {}) {
    this.#issuer = {
      issue: async () => {
        if (this.outage) throw new MeshError('ERR_MESH_UNREACHABLE', 'the CA does not answer');
        this.issues += 1;
        return this.identity();
      },
      ...(options.withRoots ? { roots: (signal: AbortSignal) => this.#roots(signal) } : {}),
      ...(options.stale ? { stale: options.stale } : {}),
      [Symbol.asyncDispose]: async () => {},
    };
  }

  identity(): Identity {
    const identity = this.ca.identity({ uris: ['spiffe://td/ns/a/sa/b'], lifetimeMs: HOUR, notBeforeSkewMs: 0 });
    return { ...identity, roots: [this.ca.root, ...(this.extraRoot ? [this.extraRoot] : [])] };
  }

  leaf(index: number): string | undefined {
    const identity = this.seen.at(index);
    return identity && leafOf(identity).fingerprint;
  }

  nameRoots(roots: readonly Certificate[]): void {
    this.#named = roots;
    this.#rootsChanged.fire();
  }

  failRoots(): void {
    this.#rootsFail = true;
    this.#rootsChanged.fire();
  }

  start(options: { current?: Identity; wake?: Wake } = {}): void {
    const host: Host = {
      clock: this.clock,
      log: silentLog,
      random: () => 0.5,
      namespace: 'emissary',
      token: () => Promise.reject(new Error('not used')),
      configMap: () => assert.fail('not used'),
      clusterTrustBundle: () => assert.fail('not used'),
      file: () => assert.fail('not used'),
      files: () => assert.fail('not used'),
      report: (error) => this.reports.push(error),
    };
    const stream = renewing(this.#issuer, host, { policy: this.policy, ...options }, this.#abort.signal);
    this.#done = (async () => {
      for await (const identity of stream) this.seen.push(identity);
    })();
  }

  async settled(): Promise<void> {
    await settle();
    await settle();
  }

  async stop(): Promise<void> {
    this.#abort.abort(new Error('test over'));
    await this.#done;
  }

  async *#roots(signal: AbortSignal): AsyncGenerator<readonly Certificate[]> {
    for (;;) {
      if (this.#rootsFail) {
        this.#rootsFail = false;
        throw new MeshError('ERR_MESH_UNAVAILABLE', 'cut');
      }
      yield this.#named;
      await this.#rootsChanged.wait(signal);
    }
  }
}
