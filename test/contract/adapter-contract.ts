import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { type AdapterCore, type Issuer, isIssuer, type Source } from '../../src/mesh/adapter.ts';
import { MESH_ERROR_CODES, MeshError } from '../../src/mesh/error.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { findPath } from '../../src/pki/chain.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { RecordingHost } from '../support/recording-host.ts';

/** A mesh for the contract of an adapter, on a clock that starts at the present and does not advance. */
export interface Subject<C> {
  readonly adapter: AdapterCore<C>;
  /** As a user writes it; parsed by the adapter's own schema. */
  readonly config: unknown;
  /** Its agent or server cannot be reached, or answers only with refusals. */
  outage(on: boolean): Promise<void> | void;
  /** Sources only: the mesh pushes a new leaf. */
  rotate?(): Promise<void> | void;
  /** Issuers with roots only: the mesh names other roots. */
  changeRoots?(): Promise<void> | void;
  /** Texts that no error and no log line may contain, in addition to tokens and keys. */
  readonly secrets?: readonly string[];
  stop(): Promise<void> | void;
}

interface World<C> {
  readonly subject: Subject<C>;
  readonly host: RecordingHost;
  readonly config: C;
  open(): Source | Issuer;
}

/** Far more than anything on loopback needs. */
const TIMEOUT_MS = 20_000;

/**
 * What the agent relies on, for any adapter. `start` sets up the host with what the adapter will request; it is called
 * for each test, and the subject is stopped after it.
 */
export function adapterContract<C>(
  name: string,
  start: (host: RecordingHost, clock: FakeClock) => Promise<Subject<C>>,
  options: { readonly timeoutMs?: number } = {},
): void {
  const within = { timeout: options.timeoutMs ?? TIMEOUT_MS };
  const promise = (title: string, run: (world: World<C>) => Promise<void>) =>
    it(title, within, async () => {
      const clock = new FakeClock(Date.now());
      const host = new RecordingHost(clock);
      const subject = await start(host, clock);
      const config = subject.adapter.config.parse(subject.config);
      const opened: (Source | Issuer)[] = [];
      const open = () => {
        const one = subject.adapter.open(config, host);
        opened.push(one);
        return one;
      };
      try {
        await run({ subject, host, config, open });
        assertNothingSecret(host, subject.secrets ?? []);
      } finally {
        for (const one of opened) await one[Symbol.asyncDispose]();
        await subject.stop();
      }
    });

  describe(`${name} keeps the contract of adapters`, () => {
    promise('open does no I/O', async ({ open, host }) => {
      const sockets = openSockets();
      open();
      await turns();
      assert.equal(host.touched, 0);
      assert.ok(openSockets() <= sockets);
    });

    promise('its first identity is whole: key, chain, roots and name fit together', async (world) => {
      const opened = world.open();
      const identity = isIssuer(opened) ? await opened.issue(live()) : await firstOf(opened.watch(live()));
      assertWhole(identity, world);
    });

    promise('a new certificate has a new key', async (world) => {
      const opened = world.open();
      const [first, second] = isIssuer(opened)
        ? [await opened.issue(live()), await opened.issue(live())]
        : await firstTwo(opened, world.subject);
      assert.notEqual(first.key.publicKeyFingerprint, second.key.publicKeyFingerprint);
      assertWhole(second, world);
    });

    promise('roots come at once and again when they change', async (world) => {
      const opened = world.open();
      if (!isIssuer(opened) || !opened.roots) return;
      const abort = new AbortController();
      const changes = opened.roots(abort.signal)[Symbol.asyncIterator]();
      const before = fingerprints((await changes.next()).value);
      assert.ok(before.length > 0);
      assert.ok(world.subject.changeRoots, 'an issuer with roots needs changeRoots');
      const next = changes.next();
      await world.subject.changeRoots();
      assert.notDeepEqual(fingerprints((await next).value), before);
      await ended(changes, abort);
    });

    promise('what was aborted before it began does nothing', async (world) => {
      const opened = world.open();
      const reason = new Error('enough');
      const signal = AbortSignal.abort(reason);
      if (isIssuer(opened)) await assert.rejects(opened.issue(signal), reason);
      else await assertEnds(opened.watch(signal)[Symbol.asyncIterator]().next(), reason);
    });

    promise('an abort ends it promptly and leaves no timer, listener or watch', async (world) => {
      const opened = world.open();
      const abort = new AbortController();
      const reason = new Error('enough');
      if (isIssuer(opened)) {
        const issued = opened.issue(abort.signal);
        await turns();
        abort.abort(reason);
        await issued.catch((error) => assert.equal(error, reason));
      } else {
        const values = opened.watch(abort.signal)[Symbol.asyncIterator]();
        await values.next();
        const next = values.next();
        await turns();
        abort.abort(reason);
        await assertEnds(next, reason);
      }
      await turns();
      assert.equal(getEventListeners(abort.signal, 'abort').length, 0);
      assert.equal(world.host.sleeping, 0);
      assert.equal(world.host.watches, 0);
    });

    promise('an outage is reported as a MeshError, and passes without opening again', async (world) => {
      const opened = world.open();
      const attempt = () => (isIssuer(opened) ? opened.issue(live()) : firstOf(opened.watch(live())));
      await world.subject.outage(true);
      for (let times = 0; times < 3; times++) await assert.rejects(attempt, isReported);
      await world.subject.outage(false);
      assertWhole(await attempt(), world);
    });

    promise('an outage that begins later is reported too, and passes', async (world) => {
      const opened = world.open();
      if (isIssuer(opened)) {
        await opened.issue(live());
        await world.subject.outage(true);
        await assert.rejects(opened.issue(live()), isReported);
      } else {
        const values = opened.watch(live())[Symbol.asyncIterator]();
        await values.next();
        const reported = assert.rejects(values.next(), isReported);
        await world.subject.outage(true);
        await reported;
      }
      await world.subject.outage(false);
      assertWhole(isIssuer(opened) ? await opened.issue(live()) : await firstOf(opened.watch(live())), world);
    });

    promise('disposing of it closes its connections', async (world) => {
      const before = openSockets();
      const opened = world.open();
      if (isIssuer(opened)) await opened.issue(live());
      else {
        const values = opened.watch(live())[Symbol.asyncIterator]();
        await values.next();
        const next = values.next();
        await opened[Symbol.asyncDispose]();
        await next.catch(() => {});
      }
      await opened[Symbol.asyncDispose]();
      while (openSockets() > before) await turns();
    });
  });
}

function assertWhole<C>(identity: Identity, { subject, config, host }: World<C>): void {
  const leaf = leafOf(identity);
  const now = host.clock.now();
  assert.equal(leaf.publicKeyFingerprint, identity.key.publicKeyFingerprint);
  assert.ok(identity.chain.every(({ selfSigned }) => !selfSigned));
  assert.ok(findPath(leaf, identity.chain.slice(1), identity.roots, Math.max(now, leaf.notBefore)).ok);
  const expected = subject.adapter.expect(config, host);
  const names = expected.form === 'spiffe' ? leaf.names.uris : leaf.names.dns;
  assert.deepEqual(names, [identity.id]);
  if (expected.id !== undefined) assert.equal(identity.id, expected.id);
}

function isReported(error: unknown): boolean {
  assert.ok(error instanceof MeshError, inspect(error));
  assert.ok(MESH_ERROR_CODES.includes(error.code));
  assert.ok(error.message.length > 20);
  return true;
}

function assertNothingSecret(host: RecordingHost, secrets: readonly string[]): void {
  const reported = [...host.lines, ...host.reports.map((error) => inspect(error, { depth: null }))].join('\n');
  for (const secret of [...host.tokensGiven, ...secrets, 'PRIVATE KEY']) assert.ok(!reported.includes(secret));
}

async function firstTwo<C>(source: Source, subject: Subject<C>): Promise<[Identity, Identity]> {
  assert.ok(subject.rotate, 'a source needs rotate');
  const abort = new AbortController();
  const values = source.watch(abort.signal)[Symbol.asyncIterator]();
  const first: Identity = (await values.next()).value;
  const next = values.next();
  await subject.rotate();
  let second: Identity = (await next).value;
  while (leafOf(second).fingerprint === leafOf(first).fingerprint) second = (await values.next()).value;
  await ended(values, abort);
  return [first, second];
}

async function firstOf<T>(values: AsyncIterable<T>): Promise<T> {
  for await (const value of values) return value;
  throw new Error('the stream ended without a value');
}

async function ended(values: AsyncIterator<unknown>, abort: AbortController): Promise<void> {
  const reason = new Error('enough');
  const next = values.next();
  abort.abort(reason);
  await assertEnds(next, reason);
}

/** By ending, or by throwing the signal's reason. */
async function assertEnds(next: Promise<IteratorResult<unknown>>, reason: Error): Promise<void> {
  try {
    assert.equal((await next).done, true);
  } catch (error) {
    assert.equal(error, reason);
  }
}

const live = (): AbortSignal => new AbortController().signal;
const fingerprints = (roots: readonly { readonly fingerprint: string }[]) => roots.map((root) => root.fingerprint);
const openSockets = (): number =>
  process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap' || kind === 'PipeWrap').length;

/** Lets pending work take its next steps. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}
