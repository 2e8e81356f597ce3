import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type Consul, type ConsulOptions, Intentions, startConsul } from './consul.ts';

const WITHIN = { timeout: 20_000 };
const ROOTS = '/v1/agent/connect/ca/roots';
const LEAF = '/v1/agent/connect/ca/leaf/web';

interface Answer {
  readonly status: number;
  readonly index: number;
  readonly text: string;
}

async function withConsul(run: (consul: Consul, clock: FakeClock) => Promise<void>, options: ConsulOptions = {}) {
  const clock = new FakeClock();
  const consul = await startConsul({ clock, random: () => 0.5, ...options });
  try {
    await run(consul, clock);
  } finally {
    await consul.stop();
  }
}

async function get(consul: Consul, path: string, token?: string): Promise<Answer> {
  const response = await fetch(
    consul.httpAddress + path,
    token === undefined ? {} : { headers: { 'x-consul-token': token } },
  );
  const index = Number(response.headers.get('x-consul-index'));
  return { status: response.status, index, text: await response.text() };
}

/** A request that the server holds; resolves once it does. */
async function held(consul: Consul, clock: FakeClock, path: string): Promise<{ answer: Promise<Answer> }> {
  const before = clock.sleeping;
  const answer = get(consul, path);
  await clock.untilSleeping(before + 1);
  return { answer };
}

const serialOf = ({ text }: Answer): string => (JSON.parse(text) as { SerialNumber: string }).SerialNumber;

test('a blocking query is held until what it reads changes', WITHIN, () =>
  withConsul(async (consul, clock) => {
    const { index } = await get(consul, ROOTS);
    const { answer } = await held(consul, clock, `${ROOTS}?index=${index}`);
    consul.rotateRoot();
    const changed = await answer;
    assert.ok(changed.index > index);
    assert.equal(JSON.parse(changed.text).Roots.length, 2);
  }),
);

test('a blocking query ends after its wait with the same index', WITHIN, () =>
  withConsul(async (consul, clock) => {
    const { index } = await get(consul, ROOTS);
    const { answer } = await held(consul, clock, `${ROOTS}?index=${index}&wait=60s`);
    await clock.advance(64_000);
    assert.equal((await answer).index, index);
  }),
);

test('one agent caches one leaf for all, whatever their token', WITHIN, () =>
  withConsul(
    async (consul) => {
      const token = consul.createToken('web').secret;
      assert.equal((await get(consul, LEAF)).status, 403);
      const first = await get(consul, LEAF, token);
      assert.equal(serialOf(await get(consul, LEAF)), serialOf(first));
    },
    { acl: true },
  ),
);

test('a leaf that lives less than ten minutes is new at every request', WITHIN, () =>
  withConsul(
    async (consul) => {
      assert.notEqual(serialOf(await get(consul, LEAF)), serialOf(await get(consul, LEAF)));
    },
    { leafLifetimeMs: 300_000 },
  ),
);

test('a request without an index gets a new leaf at once after a change of the CA', WITHIN, () =>
  withConsul(async (consul) => {
    const first = await get(consul, LEAF);
    assert.equal(serialOf(await get(consul, LEAF)), serialOf(first));
    consul.rotateRoot();
    assert.notEqual(serialOf(await get(consul, LEAF)), serialOf(first));
  }),
);

test('a token of a login lives as long as its method says', WITHIN, () =>
  withConsul(
    async (consul, clock) => {
      consul.addAuthMethod({ name: 'm', bind: () => 'web', maxTokenTtlMs: 60_000 });
      const login = await fetch(`${consul.httpAddress}/v1/acl/login`, {
        method: 'POST',
        body: JSON.stringify({ AuthMethod: 'm', BearerToken: 'x' }),
      });
      const { SecretID, ExpirationTime } = (await login.json()) as { SecretID: string; ExpirationTime: string };
      assert.equal(Date.parse(ExpirationTime), clock.now() + 60_000);
      assert.equal((await get(consul, '/v1/acl/token/self', SecretID)).status, 200);
      await clock.advance(60_000);
      const after = await get(consul, '/v1/acl/token/self', SecretID);
      assert.deepEqual([after.status, after.text], [403, 'ACL not found']);
    },
    { acl: true },
  ),
);

test('intentions match trust domain, namespace and service of the caller, not its datacenter', () => {
  const intentions = new Intentions('deny', () => 'td.consul');
  intentions.set('ambassador', 'web', 'allow');
  const id = (trustDomain: string, namespace: string, datacenter: string, service: string) =>
    `spiffe://${trustDomain}/ns/${namespace}/dc/${datacenter}/svc/${service}`;
  assert.equal(intentions.allows(id('td.consul', 'default', 'dc1', 'ambassador'), 'web'), true);
  assert.equal(intentions.allows(id('td.consul', 'default', 'dc2', 'ambassador'), 'web'), true);
  assert.equal(intentions.allows(id('other.consul', 'default', 'dc1', 'ambassador'), 'web'), false);
  assert.equal(intentions.allows(id('td.consul', 'team', 'dc1', 'ambassador'), 'web'), false);
  assert.equal(intentions.allows(id('td.consul', 'default', 'dc1', 'other'), 'web'), false);
  assert.equal(intentions.allows('spiffe://td.consul/agent/client/dc/dc1/id/ambassador', 'web'), false);
  intentions.set('*', 'api', 'allow');
  intentions.set('ambassador', 'api', 'deny');
  assert.equal(intentions.allows(id('td.consul', 'default', 'dc1', 'other'), 'api'), true);
  assert.equal(intentions.allows(id('td.consul', 'default', 'dc1', 'ambassador'), 'api'), false);
});
