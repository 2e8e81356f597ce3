import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { silentLog } from '../mesh/log.ts';
import type { KubeObject } from '../objects/objects.ts';
import type { Kube } from './api.ts';
import { connect } from './client.ts';
import { type ReflectOptions, type Reflector, reflect } from './reflector.ts';
import { onlyNamed, RESOURCES } from './resources.ts';
import { KubeError } from './transport/error.ts';

const configMap = (name: string, data: Record<string, string> = {}): KubeObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: 'emissary' },
  data,
});

interface Rig {
  readonly api: KubeApi;
  readonly kube: Kube;
  readonly clock: FakeClock;
  readonly reflector: Reflector;
  readonly stop: AbortController;
  /** The next reported failure, in order. */
  failure(): Promise<KubeError>;
  /** Waits for the change and returns the names that are known then. */
  known(...names: string[]): Promise<void>;
  watchRequests(): number;
}

async function rig(
  test: TestContext,
  options: KubeApiOptions & {
    kubeconfig?: (api: KubeApi) => Promise<string>;
    reflect?: Partial<ReflectOptions<KubeObject>>;
    answered?: () => void;
  } = {},
): Promise<Rig> {
  const api = await startKubeApi({ namespaces: ['emissary'], tls: false, ...options });
  const clock = new FakeClock();
  const access = options.kubeconfig
    ? { kubeconfig: await options.kubeconfig(api) }
    : { kubeconfigText: api.kubeconfig() };
  const kube = connect({ ...access, userAgent: 'reflector-test/1', clock, answered: options.answered });
  const stop = new AbortController();
  const failures: KubeError[] = [];
  const waiting: ((failure: KubeError) => void)[] = [];
  const reflector = reflect<KubeObject>(
    kube,
    RESOURCES.configMaps,
    { namespace: 'emissary' },
    {
      clock,
      random: () => 0.5,
      log: silentLog,
      signal: stop.signal,
      onError(error) {
        assert.ok(error instanceof KubeError, String(error));
        const waiter = waiting.shift();
        if (waiter) waiter(error);
        else failures.push(error);
      },
      ...options.reflect,
    },
  );
  const changes = reflector.changes()[Symbol.asyncIterator]();
  test.after(async () => {
    stop.abort();
    await reflector.ended;
    kube.close();
    await api.stop();
  });
  return {
    api,
    kube,
    clock,
    reflector,
    stop,
    failure: async () => failures.shift() ?? new Promise((resolve) => waiting.push(resolve)),
    async known(...names) {
      const all = () => [...reflector.items().values()].map((item) => item.metadata.name);
      while (String(all()) !== String(names)) await changes.next();
    },
    watchRequests: () => api.requests.count({ verb: 'watch' }),
  };
}

/** A request's deadline: a shorter sleep is a wait before an attempt. */
const DEADLINE_MS = 30_000;

describe('a reflector', { timeout: 60_000 }, () => {
  it('backs off from a server that ends each watch at once, and follows again when it stops doing so', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, known, watchRequests, reflector } = played;
    await reflector.synced;
    api.closeWatchesAtOnce(true);
    api.dropWatches();
    for (let round = 1; round <= 20; round++) {
      const error = await failure();
      assert.equal(error.code, 'ERR_KUBE_SERVER');
      assert.equal(watchRequests(), round);
      await nextAttempt(clock);
    }
    await failure();
    api.closeWatchesAtOnce(false);
    api.put(configMap('a'));
    await nextAttempt(clock);
    await known('a');
  });

  it('waits longer after each failure, up to half a minute', async (test) => {
    const played = await rig(test, { reflect: { random: () => 0.999 } });
    const { api, clock, failure } = played;
    api.fault({ match: ({ verb }) => verb === 'watch', status: 500 });
    const waits: number[] = [];
    for (let round = 0; round < 9; round++) {
      await failure();
      waits.push(Math.round((await nextAttempt(clock)) / 100) / 10);
    }
    assert.deepEqual(waits, [0.5, 1, 2, 4, 8, 16, 30, 30, 30]);
  });

  it('notices a connection that is half open, and finds the changes that it missed', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, known, reflector } = played;
    await reflector.synced;
    api.stallWatches(true);
    await following(played);
    api.put(configMap('a'));
    await clock.advance(clock.nextIn ?? 0);
    const error = await failure();
    assert.match(error.message, /sent nothing for too long/);
    assert.equal(reflector.items().size, 0);
    api.stallWatches(false);
    await nextAttempt(clock);
    await known('a');
    assert.equal(reflector.problem, undefined);
  });

  it('notices silence sooner when the server sends bookmarks', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, reflector } = played;
    await reflector.synced;
    await following(played);
    const before = reflector.lastEventAt;
    await clock.advance(1000);
    api.bookmark();
    while (reflector.lastEventAt === before) await new Promise(setImmediate);
    api.stallWatches(true);
    assert.equal(clock.nextIn, 150_000);
    await clock.advance(150_000);
    assert.match((await failure()).message, /sent nothing for too long/);
  });

  it('reads everything again when its version is too old, without reporting a failure', async (test) => {
    const played = await rig(test);
    const { api, known, reflector, watchRequests } = played;
    await reflector.synced;
    await following(played);
    api.put(configMap('a'));
    await known('a');
    api.compact(true);
    api.put(configMap('b'));
    await known('a', 'b');
    assert.equal(reflector.problem, undefined);
    assert.equal(watchRequests(), 2);
  });

  it('does not spin on a server that reports every version as too old', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, watchRequests } = played;
    api.fault({ match: ({ verb }) => verb === 'watch', status: 410 });
    for (let round = 1; round <= 5; round++) {
      assert.equal((await failure()).code, 'ERR_KUBE_GONE');
      assert.equal(watchRequests(), round + 1);
      await nextAttempt(clock);
    }
  });

  it('reads everything again at once when its version is too old after an outage', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, known, reflector } = played;
    await reflector.synced;
    await following(played);
    const end = api.fault({ match: ({ verb }) => verb === 'watch', status: 500 });
    api.dropWatches();
    await failure();
    for (let round = 1; round < 4; round++) {
      await nextAttempt(clock);
      await failure();
    }
    end();
    api.put(configMap('a'));
    api.compact(true);
    await nextAttempt(clock);
    await known('a');
  });

  it('does not spin on a server that sends the state and an event, and then a version that is too old', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, known, reflector, watchRequests } = played;
    await reflector.synced;
    await following(played);
    const names = ['a', 'b', 'c', 'd'];
    for (const [round, name] of names.entries()) {
      api.put(configMap(name));
      await known(...names.slice(0, round + 1));
      api.compact(true);
      if (round === 0) continue;
      assert.equal((await failure()).code, 'ERR_KUBE_GONE');
      assert.equal(watchRequests(), round + 1);
      await nextAttempt(clock);
    }
  });

  it('reads a new token from its file when the old one is no longer valid', async (test) => {
    const dir = await mkdtemp(join(tmpdir(), 'reflector-'));
    test.after(() => rm(dir, { recursive: true }));
    const token = join(dir, 'token');
    const account = { name: 'agent', namespace: 'emissary' };
    const kubeconfig = async (api: KubeApi) => {
      api.put({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: account });
      await writeFile(token, `${api.tokenFor(account)}\n`);
      const path = join(dir, 'kubeconfig');
      await writeFile(path, api.kubeconfig().replace(/token: .*/, 'tokenFile: token'));
      return path;
    };
    const played = await rig(test, { kubeconfig });
    const { api, clock, known, reflector } = played;
    await reflector.synced;
    await following(played);
    const old = (await readFile(token, 'utf8')).trim();
    await writeFile(token, api.tokenFor(account));
    api.revoke(old);
    api.dropWatches();
    api.put(configMap('a'));
    await nextAttempt(clock);
    await known('a');
    assert.equal(reflector.problem, undefined);
  });

  it('keeps running while it is forbidden, says which rule is missing, and works once it is granted', async (test) => {
    const account = { name: 'agent', namespace: 'emissary' };
    const dir = await mkdtemp(join(tmpdir(), 'reflector-'));
    test.after(() => rm(dir, { recursive: true }));
    const kubeconfig = async (api: KubeApi) => {
      api.put({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: account });
      const path = join(dir, 'kubeconfig');
      await api.writeKubeconfig(path, { token: api.tokenFor(account) });
      return path;
    };
    const played = await rig(test, { rbac: true, kubeconfig });
    const { api, clock, failure, known, reflector } = played;
    for (let round = 0; round < 3; round++) {
      const error = await failure();
      assert.equal(error.code, 'ERR_KUBE_FORBIDDEN');
      assert.match(error.message, /resources: \[configmaps\], verbs: \[watch\]\} in namespace emissary/);
      assert.equal(reflector.problem, error);
      assert.equal(reflector.isSynced, false);
      await nextAttempt(clock);
    }
    await failure();
    const rule = { apiGroups: [''], resources: ['configmaps'], verbs: ['list', 'watch'] };
    const meta = { name: 'agent', namespace: 'emissary' };
    const subjects = [{ kind: 'ServiceAccount', ...account }];
    const rbac = 'rbac.authorization.k8s.io/v1';
    api.put({ apiVersion: rbac, kind: 'Role', metadata: meta, rules: [rule] });
    api.put({
      apiVersion: rbac,
      kind: 'RoleBinding',
      metadata: meta,
      subjects,
      roleRef: { kind: 'Role', name: 'agent' },
    });
    api.put(configMap('a'));
    await nextAttempt(clock);
    await known('a');
  });

  it('survives an API server that is down for a minute, without hammering it', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, known, reflector, kube } = played;
    api.put(configMap('a'));
    await reflector.synced;
    await following(played);
    await api.outage(true);
    let attempts = 0;
    for (let passed = 0; passed < 60_000; attempts++) {
      assert.equal((await failure()).code, 'ERR_KUBE_UNREACHABLE');
      passed += await nextAttempt(clock);
    }
    assert.ok(attempts <= 12, `${attempts} attempts in a minute`);
    await failure();
    assert.deepEqual(
      [...reflector.items().values()].map((item) => item.metadata.name),
      ['a'],
    );
    await api.outage(false);
    api.put(configMap('b'));
    await nextAttempt(clock);
    await known('a', 'b');
    assert.equal(reflector.problem, undefined);
    assert.equal((await kube.list(RESOURCES.configMaps, {})).items.length, 2);
  });

  it('finds a change that no event reported, by reading everything again every ten minutes', async (test) => {
    const played = await rig(test);
    const { api, clock, known, reflector } = played;
    api.put(configMap('a'));
    await known('a');
    await following(played);
    api.muteWatches(true);
    api.put(configMap('b'));
    api.muteWatches(false);
    for (let minutes = 0; minutes <= 11; minutes += 2) {
      const before = reflector.lastEventAt;
      await clock.advance(120_000);
      api.bookmark();
      while (reflector.lastEventAt === before) await new Promise(setImmediate);
    }
    assert.equal(reflector.items().size, 1);
    api.dropWatches();
    await known('a', 'b');
    assert.equal(reflector.problem, undefined);
  });

  it('reads everything again on resync', async (test) => {
    const played = await rig(test);
    const { api, known, reflector } = played;
    await reflector.synced;
    await following(played);
    api.muteWatches(true);
    api.put(configMap('a'));
    api.muteWatches(false);
    reflector.resync();
    await known('a');
  });

  it('forgets no resync when more events arrived together with the one that led to it', async (test) => {
    let resync = () => {};
    const keep = (object: KubeObject): KubeObject => {
      if (object.metadata.name === 'b') resync();
      return object;
    };
    let states = 0;
    const onState = () => {
      states += 1;
    };
    const played = await rig(test, { reflect: { keep, onState } });
    const { api, known, reflector } = played;
    await reflector.synced;
    await following(played);
    resync = () => {
      resync = () => {};
      reflector.resync();
    };
    for (const name of ['a', 'b', 'c']) api.put(configMap(name));
    await known('a', 'b', 'c');
    assert.equal(states, 2);
  });

  it('asks for the state again after a watch that the server did not answer at all', async (test) => {
    const played = await rig(test);
    const { api, clock, failure, known, reflector } = played;
    await reflector.synced;
    await following(played);
    let asked = false;
    const met = () => {
      asked = true;
    };
    const end = api.fault({ match: ({ verb }) => verb === 'watch', latencyMs: 3_600_000, met });
    reflector.resync();
    while (!asked) await new Promise(setImmediate);
    await clock.advance(DEADLINE_MS);
    assert.match((await failure()).message, /no answer within 30 s/);
    end();
    api.put(configMap('a'));
    await nextAttempt(clock);
    await known('a');
    assert.equal(api.requests.count({ verb: 'list' }), 0);
  });

  it('reads everything by its watch, without a list', async (test) => {
    const played = await rig(test, { objects: [configMap('a'), configMap('b')] });
    await played.known('a', 'b');
    assert.equal(played.api.requests.count({ verb: 'list' }), 0);
    assert.equal(played.watchRequests(), 1);
  });

  it('lists where the server cannot begin a watch with the state', async (test) => {
    const played = await rig(test, { watchList: false, objects: [configMap('a')] });
    const { api, known, reflector, watchRequests } = played;
    await known('a');
    assert.equal(reflector.problem, undefined);
    api.put(configMap('b'));
    await known('a', 'b');
    assert.equal(api.requests.count({ verb: 'list' }), 1);
    reflector.resync();
    await following(played);
    while (watchRequests() < 3) await new Promise(setImmediate);
    assert.equal(api.requests.count({ verb: 'list' }), 2);
  });

  it('lists where the server begins with the state and does not complete it', async (test) => {
    let isAnswered = false;
    const answered = () => {
      isAnswered = true;
    };
    const played = await rig(test, { objects: [configMap('a')], answered });
    const { api, clock, failure, known, reflector } = played;
    api.stallWatches(true);
    while (!isAnswered) await new Promise(setImmediate);
    await new Promise(setImmediate);
    await clock.advance(DEADLINE_MS);
    const { code, message } = await failure();
    assert.equal(code, 'ERR_KUBE_SERVER');
    assert.match(
      message,
      /^watch configmaps in namespace emissary: the server did not send all objects within 30 s\. /,
    );
    assert.equal(reflector.isSynced, false);
    await nextAttempt(clock);
    await known('a');
    assert.equal(api.requests.count({ verb: 'list' }), 1);
  });

  it('stores only what its transform returns', async (test) => {
    const keep = ({ apiVersion, kind, metadata }: KubeObject): KubeObject => ({ apiVersion, kind, metadata });
    const played = await rig(test, { reflect: { keep } });
    const { api, known, reflector } = played;
    api.put(configMap('a', { big: 'x' }));
    await known('a');
    assert.ok([...reflector.items().values()].every((item) => item.data === undefined));
  });

  it('gives every reader all keys first, and joins the changes that a slow one missed', async (test) => {
    const played = await rig(test);
    const { api, known, reflector } = played;
    api.put(configMap('a'));
    await known('a');
    const late = reflector.changes()[Symbol.asyncIterator]();
    assert.deepEqual([...(await late.next()).value], ['v1|ConfigMap|emissary|a']);
    api.put(configMap('b'));
    await known('a', 'b');
    api.put(configMap('c'));
    await known('a', 'b', 'c');
    assert.deepEqual([...(await late.next()).value], ['v1|ConfigMap|emissary|b', 'v1|ConfigMap|emissary|c']);
  });

  it('leaves no connection and no listener behind after a thousand watches', async (test) => {
    const played = await rig(test);
    const { api, clock, reflector, stop, known, failure } = played;
    await reflector.synced;
    await following(played);
    const listeners = () => getEventListeners(stop.signal, 'abort').length;
    const before = {
      listeners: listeners(),
      handles: process.getActiveResourcesInfo().length,
      sleeping: clock.sleeping,
    };
    for (let round = 0; round < 1000; round++) {
      api.dropWatches(round % 2 === 0 ? 'end' : 'cut');
      await failure();
      await nextAttempt(clock);
      await following(played);
    }
    api.put(configMap('a'));
    await known('a');
    assert.ok(api.connections <= 4, `${api.connections} connections`);
    assert.ok(listeners() <= before.listeners + 1, `${listeners()} listeners`);
    assert.ok(clock.sleeping <= before.sleeping + 1, `${clock.sleeping} sleeps`);
    assert.ok(process.getActiveResourcesInfo().length <= before.handles + 6);
  });

  it('follows a single object by name under a Role that permits only that name', async (test) => {
    const played = await rig(test, { rbac: true });
    const { api, stop, clock } = played;
    const account = { name: 'agent', namespace: 'emissary' };
    const rbac = 'rbac.authorization.k8s.io/v1';
    const rule = { apiGroups: [''], resources: ['secrets'], resourceNames: ['istio-ca'], verbs: ['list', 'watch'] };
    api.put({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: account });
    api.put({ apiVersion: rbac, kind: 'Role', metadata: account, rules: [rule] });
    const subjects = [{ kind: 'ServiceAccount', ...account }];
    api.put({
      apiVersion: rbac,
      kind: 'RoleBinding',
      metadata: account,
      subjects,
      roleRef: { kind: 'Role', name: 'agent' },
    });
    const secret = (name: string) => ({ apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace: 'emissary' } });
    api.put(secret('other'));
    const kube = connect({ kubeconfigText: api.kubeconfig({ token: api.tokenFor(account) }), userAgent: 'x/1', clock });
    const options = { clock, random: Math.random, log: silentLog, signal: stop.signal };
    const one = reflect(kube, RESOURCES.secrets, onlyNamed('istio-ca', 'emissary'), options);
    await one.synced;
    assert.equal(one.items().size, 0);
    api.put(secret('istio-ca'));
    for await (const keys of one.changes()) {
      if (keys.size === 0) continue;
      assert.deepEqual([...keys], ['v1|Secret|emissary|istio-ca']);
      break;
    }
    kube.close();
  });
});

/** Resolves once both sides have the watch open: then only its watchdog sleeps. */
async function following({ api, clock }: Pick<Rig, 'api' | 'clock'>): Promise<void> {
  while (api.watches !== 1 || clock.sleeping !== 1) await new Promise(setImmediate);
}

/** Ends only the wait before the next attempt; returns how long it was. */
async function nextAttempt(clock: FakeClock): Promise<number> {
  while ((clock.nextIn ?? DEADLINE_MS) >= DEADLINE_MS) await new Promise(setImmediate);
  const wait = clock.nextIn ?? 0;
  await clock.advance(wait);
  return wait;
}
