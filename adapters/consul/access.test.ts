import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../src/mesh/error.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { type LoginPort, type LoginToken, openTokens } from './access.ts';
import { configSchema } from './config.ts';

const live = () => new AbortController().signal;
const MINUTE = 60_000;

/** A Consul that issues `token-1`, `token-2`, … */
class Logins implements LoginPort {
  readonly bearers: string[] = [];
  readonly settledTokens: string[] = [];
  readonly loggedOut: string[] = [];
  ttlMs: number | undefined;
  failing: MeshError | undefined;
  unsettled: MeshError | undefined;
  async login(_: unknown, bearer: string): Promise<LoginToken> {
    if (this.failing) throw this.failing;
    this.bearers.push(bearer);
    const secret = `token-${this.bearers.length}`;
    return this.ttlMs === undefined ? { secret } : { secret, lifeMs: this.ttlMs };
  }

  async settled(token: string): Promise<void> {
    if (this.unsettled) throw this.unsettled;
    this.settledTokens.push(token);
  }

  async logout(token: string, _signal?: AbortSignal): Promise<void> {
    this.loggedOut.push(token);
  }
}

function setUp(auth: object) {
  const clock = new FakeClock();
  const host = new RecordingHost(clock);
  const logins = new Logins();
  let minted = 0;
  host.mint = () => `bearer-${++minted}`;
  const config = configSchema.parse({ http: { address: 'https://c' }, auth });
  return { clock, host, logins, tokens: openTokens(config, host, logins) };
}

const withLogin = () => setUp({ login: { method: 'kubernetes', serviceAccount: 'emissary', audience: 'consul' } });

test('without auth no token is sent', async () => {
  const clock = new FakeClock();
  const tokens = openTokens({}, new RecordingHost(clock), new Logins());
  assert.equal(await tokens.get(live()), undefined);
  assert.equal(tokens.rejected(undefined), false);
});

test('a token file is read at each use, so that it may be replaced', async () => {
  const { host, tokens } = setUp({ tokenFile: '/token' });
  host.setFile('/token', 'one\n');
  assert.equal(await tokens.get(live()), 'one');
  host.setFile('/token', ' two ');
  assert.equal(await tokens.get(live()), 'two');
  assert.equal(host.watches, 0);
});

test('a JWT in a token file is not sent: it is a token of something else, such as the Kubernetes API', async () => {
  const { host, tokens } = setUp({ tokenFile: '/token' });
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  host.setFile('/token', `${part({ alg: 'RS256' })}.${part({ aud: ['api'] })}.c2lnbmVk`);
  await assert.rejects(tokens.get(live()), { code: 'ERR_MESH_TOKEN', message: /\/token has a JWT.*login\.tokenFile/ });
});

for (const [title, text] of [
  ['missing', undefined],
  ['empty', ' \n'],
] as const) {
  test(`a token file that is ${title} is named`, async () => {
    const { host, tokens } = setUp({ tokenFile: '/token' });
    host.setFile('/token', text);
    await assert.rejects(tokens.get(live()), { code: 'ERR_MESH_TOKEN', message: /\/token/ });
  });
}

test('login requests a bearer token of the ServiceAccount, once for all callers that wait', async () => {
  const { host, logins, tokens } = withLogin();
  assert.deepEqual(await Promise.all([tokens.get(live()), tokens.get(live()), tokens.get(live())]), [
    'token-1',
    'token-1',
    'token-1',
  ]);
  assert.equal(await tokens.get(live()), 'token-1');
  assert.deepEqual(logins.bearers, ['bearer-1']);
  assert.deepEqual(logins.settledTokens, ['token-1']);
  assert.deepEqual(host.tokenRequests, [
    {
      audience: 'consul',
      destinations: [{ address: 'c:443', secure: true }],
      serviceAccount: { namespace: 'emissary', name: 'emissary' },
    },
  ]);
});

test('a token that expires is replaced in the last quarter of its life, and logged out', async () => {
  const { clock, logins, tokens } = withLogin();
  logins.ttlMs = MINUTE;
  assert.equal(await tokens.get(live()), 'token-1');
  assert.equal(tokens.goodUntil, clock.now() + 45_000);
  await clock.advance(44_000);
  assert.equal(await tokens.get(live()), 'token-1');
  await clock.advance(1000);
  assert.equal(await tokens.get(live()), 'token-2');
  await settle();
  assert.deepEqual(logins.loggedOut, ['token-1']);
  assert.deepEqual(logins.bearers, ['bearer-1', 'bearer-2']);
});

test('a token that Consul forgot is replaced by a new login, without a logout', async () => {
  const { logins, tokens } = withLogin();
  const first = await tokens.get(live());
  assert.equal(tokens.rejected(first), true);
  assert.equal(await tokens.get(live()), 'token-2');
  await settle();
  assert.deepEqual(logins.loggedOut, []);
});

test('a late rejection of a token that was replaced since causes no login', async () => {
  const { logins, tokens } = withLogin();
  const first = await tokens.get(live());
  tokens.rejected(first);
  await tokens.get(live());
  assert.equal(tokens.rejected(first), true);
  assert.equal(await tokens.get(live()), 'token-2');
  assert.equal(logins.bearers.length, 2);
});

test('a login that failed is retried at the next use', async () => {
  const { logins, tokens } = withLogin();
  logins.failing = new MeshError('ERR_MESH_DENIED', 'no binding rule matched');
  await assert.rejects(tokens.get(live()), /no binding rule/);
  logins.failing = undefined;
  assert.equal(await tokens.get(live()), 'token-1');
});

test('a token that never reaches the servers is logged out and not used', async () => {
  const { logins, tokens } = withLogin();
  logins.unsettled = new MeshError('ERR_MESH_TOKEN', 'ACL not found');
  await assert.rejects(tokens.get(live()), /ACL not found/);
  assert.deepEqual(logins.loggedOut, ['token-1']);
});

test('a caller that stops waiting does not end the login for the others', async () => {
  const { tokens } = withLogin();
  const abort = new AbortController();
  const impatient = tokens.get(abort.signal);
  const patient = tokens.get(live());
  abort.abort(new Error('enough'));
  await assert.rejects(impatient, /enough/);
  assert.equal(await patient, 'token-1');
});

test('closing logs out', async () => {
  const { host, logins, tokens } = withLogin();
  await tokens.get(live());
  await tokens[Symbol.asyncDispose]();
  assert.deepEqual(logins.loggedOut, ['token-1']);
  assert.equal(host.sleeping, 0);
});

test('a logout that hangs is abandoned after 5 s', async () => {
  const { clock, host, logins, tokens } = withLogin();
  logins.logout = (token: string, signal?: AbortSignal) => {
    logins.loggedOut.push(token);
    return new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
  };
  await tokens.get(live());
  const closed = tokens[Symbol.asyncDispose]();
  await clock.untilSleeping();
  await clock.advance(5000);
  await closed;
  assert.ok(host.lines.some((line) => line.includes('could not be logged out')));
  assert.ok(!host.lines.some((line) => line.includes('token-1')));
});
