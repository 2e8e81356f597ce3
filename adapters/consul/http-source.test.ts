import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { type Consul, type ConsulOptions, startConsul } from '../../sandbox/consul/consul.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { MeshError, type MeshErrorCode } from '../../src/mesh/error.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { brief, examined } from '../../test/support/examined.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { consul as adapter } from './adapter.ts';
import type { HttpSource } from './http-source.ts';

const HOUR = 3_600_000;
const WITHIN = { timeout: 20_000 };

interface World {
  readonly clock: FakeClock;
  readonly host: RecordingHost;
  readonly consul: Consul;
  open(config?: object): AsyncGenerator<Identity>;
}

/** A sandbox Consul and a source on one clock that only the test advances. */
async function world(run: (world: World) => Promise<void>, options: ConsulOptions = {}): Promise<void> {
  const clock = new FakeClock(Date.now());
  const host = new RecordingHost(clock);
  const consul = await startConsul({ clock, random: () => 0.5, ...options });
  const stop = new AbortController();
  const opened: HttpSource[] = [];
  const open = (config: object = {}) => {
    const source = adapter.open(
      adapter.config.parse({ http: { address: consul.httpAddress }, ...config }),
      host,
    ) as HttpSource;
    opened.push(source);
    return source.watch(stop.signal);
  };
  try {
    await run({ clock, host, consul, open });
  } finally {
    stop.abort(new Error('the test ended'));
    for (const source of opened) await source[Symbol.asyncDispose]();
    await consul.stop();
  }
}

async function take(values: AsyncGenerator<Identity>): Promise<Identity> {
  const { value, done } = await values.next();
  if (done) throw new Error('the stream ended');
  return value;
}

/** Moves the clock until the promise settles: nothing here waits for real time. */
async function drive<T>(clock: FakeClock, promise: Promise<T>): Promise<T> {
  let settled = false;
  const noted = promise.finally(() => {
    settled = true;
  });
  noted.catch(() => undefined);
  while (!settled) {
    await settle();
    if (!settled && (clock.nextIn ?? Number.POSITIVE_INFINITY) <= 240_000)
      await clock.advance(Math.min(clock.nextIn ?? 0, 1000));
  }
  return noted;
}

test('the key of the agent becomes one PKCS#8 block', WITHIN, () =>
  world(async ({ open }) => {
    const { key } = await take(open());
    assert.match(key.toPem(), /^-----BEGIN PRIVATE KEY-----\n[\s\S]+-----END PRIVATE KEY-----\n$/);
  }),
);

test('serial numbers of roots above 2^53 do no harm', WITHIN, () =>
  world(async ({ consul, open }) => {
    const values = open();
    const identity = await take(values);
    assert.ok(identity.roots.every(({ serial }) => BigInt(`0x${serial}`) > 2n ** 53n));
    assert.equal(identity.roots[0]?.fingerprint, consul.roots()[0]?.fingerprint);
  }),
);

test('a renewed signing certificate under the same root brings a new leaf', WITHIN, () =>
  world(async ({ clock, consul, open }) => {
    const values = open();
    const first = await take(values);
    const next = values.next();
    await settle();
    consul.rotateIntermediate();
    const { value: second } = await drive(clock, next);
    assert.notEqual(leafOf(second).fingerprint, leafOf(first).fingerprint);
    assert.equal(second.chain.length, 2);
    assert.deepEqual(second.roots, first.roots);
  }),
);

test('while signing is rate-limited, the old leaf stays under the new roots and the stream continues', WITHIN, () =>
  world(async ({ clock, consul, open }) => {
    const values = open();
    const first = await take(values);
    consul.rateLimit();
    const next = values.next();
    await settle();
    consul.rotateRoot();
    const { value: widened } = await drive(clock, next);
    assert.equal(leafOf(widened).fingerprint, leafOf(first).fingerprint);
    assert.equal(widened.roots.length, 2);
    const last = values.next();
    for (let step = 0; step < 120; step++) {
      await clock.advance(1000);
      await settle();
    }
    consul.rateLimit(0);
    const { value: renewed } = await drive(clock, last);
    assert.equal(leafOf(renewed).authorityKeyId, consul.roots()[0]?.subjectKeyId);
  }),
);

test('an index that goes backwards is followed', WITHIN, () =>
  world(async ({ clock, consul, open }) => {
    const values = open();
    await take(values);
    const next = values.next();
    await settle();
    consul.indexBackwards();
    await drive(clock, Promise.race([next, until(() => plainRoots(consul) >= 2)]));
    consul.rotateRoot();
    const { value } = await drive(clock, next);
    assert.equal(value.roots.length, 2);
  }),
);

function plainRoots(consul: Consul): number {
  return consul.httpRequests.filter((request) => request === 'GET /v1/agent/connect/ca/roots').length;
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await settle();
}

test('a source that failed remembers nothing wrong: opened again, it starts with the current state', WITHIN, () =>
  world(async ({ consul, host, open }) => {
    consul.answerNext(500, 'No cluster leader');
    consul.answerNext(500, 'No cluster leader');
    await assert.rejects(take(open()), { code: 'ERR_MESH_UNAVAILABLE' });
    assert.equal((await take(open())).roots.length, 1);
    assert.equal(host.reports.length, 0);
  }),
);

test("a token's life is counted by Consul's own clock, however wrong ours is", WITHIN, () =>
  world(
    async ({ clock, consul, host, open }) => {
      consul.addAuthMethod({ name: 'm', bind: () => 'ambassador', maxTokenTtlMs: HOUR });
      host.mint = () => 'bearer';
      clock.step(2 * HOUR);
      const login = { auth: { login: { method: 'm', tokenFile: '/token' } } };
      const values = open(login);
      await take(values);
      assert.equal(consul.tokens.length, 1);
      await clock.advance(HOUR / 2);
      assert.equal(host.tokenRequests.length, 1);
    },
    { acl: true, clock: new FakeClock(Date.now()) },
  ),
);

const LEAF_KEY = PrivateKey.generate();
const ROOTS_OF_NOTHING = JSON.stringify({ ActiveRootID: '', TrustDomain: '', Roots: null });

const answers: [string, number, string, MeshErrorCode][] = [
  ['an error body of a megabyte', 500, 'x'.repeat(1_000_000), 'ERR_MESH_UNAVAILABLE'],
  ['an answer of 5 MB', 200, `"${'x'.repeat(5_000_000)}"`, 'ERR_MESH_BAD_RESPONSE'],
  ['HTML', 200, '<html>portal</html>', 'ERR_MESH_BAD_RESPONSE'],
  ['JSON that is cut off', 200, '{"CertPEM": "-----BEGIN', 'ERR_MESH_BAD_RESPONSE'],
  ['null', 200, 'null', 'ERR_MESH_BAD_RESPONSE'],
  ['no roots', 200, ROOTS_OF_NOTHING, 'ERR_MESH_BAD_RESPONSE'],
  [
    'a key without its leaf',
    200,
    JSON.stringify({ CertPEM: '', PrivateKeyPEM: LEAF_KEY.toPem(), Roots: [], TrustDomain: 'x' }),
    'ERR_MESH_BAD_RESPONSE',
  ],
];
for (const [title, status, body, code] of answers) {
  test(`${title} ends the stream with ${code}, in a short message without secrets`, WITHIN, () =>
    world(async ({ consul, open }) => {
      consul.answerNext(status, body);
      consul.answerNext(status, body);
      await assert.rejects(take(open()), (error) => {
        assert.ok(error instanceof MeshError, inspect(error));
        assert.equal(error.code, code);
        assert.ok(error.message.length < 600);
        assert.doesNotMatch(inspect(error, { depth: null }), /PRIVATE KEY/);
        return true;
      });
    }),
  );
}

test('the trust domain is pinned only on request', WITHIN, () =>
  world(async ({ open }) => {
    await assert.rejects(take(open({ trustDomain: 'other.consul' })), {
      code: 'ERR_MESH_CONFIG',
      message: /trustDomain/,
    });
  }),
);

test('a CA file that changes is used at the next request', WITHIN, async () => {
  const tls = SandboxCa.root({ name: 'Consul Agent CA' });
  await world(
    async ({ host, consul, open }) => {
      const config = { http: { address: consul.httpAddress, tls: { ca: { file: '/ca.pem' } } } };
      host.setFile('/ca.pem', SandboxCa.root().certificate.pem);
      await assert.rejects(take(open(config)), { code: 'ERR_MESH_TLS' });
      host.setFile('/ca.pem', tls.certificate.pem);
      assert.equal((await take(open(config))).roots.length, 1);
    },
    { tls },
  );
});

for (const [title, ca, message] of [
  ['file', { file: '/nowhere' }, /\/nowhere/],
  ['ConfigMap', { configMap: { name: 'consul-ca' } }, /ConfigMap emissary\/consul-ca does not exist/],
] as const) {
  test(`a CA ${title} that is missing is named`, WITHIN, () =>
    world(async ({ open }) => {
      const config = { http: { address: 'https://127.0.0.1:1', tls: { ca } } };
      await assert.rejects(take(open(config)), { code: 'ERR_MESH_CONFIG', message });
    }),
  );
}

test('the certificate of the API is verified by the configured name when dialled by address', WITHIN, async () => {
  const tls = SandboxCa.root({ name: 'Consul Agent CA' });
  await world(
    async ({ consul, open }) => {
      const ca = { inline: tls.certificate.pem };
      const named = (serverName: string) => ({ http: { address: consul.httpAddress, tls: { ca, serverName } } });
      assert.equal((await take(open(named('server.dc1.consul')))).roots.length, 1);
      await assert.rejects(take(open(named('server.dc2.consul'))), { code: 'ERR_MESH_TLS' });
    },
    { tls },
  );
});

test('an agent that does not answer is abandoned after 20 s', WITHIN, () =>
  world(async ({ clock, open }) => {
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = silent.address() as { port: number };
      const first = take(open({ http: { address: `http://127.0.0.1:${port}` } }));
      await assert.rejects(drive(clock, first), { code: 'ERR_MESH_TIMEOUT', message: /20 s/ });
    } finally {
      silent.closeAllConnections();
      silent.close();
    }
  }),
);

test('an agent is reached over a unix socket', WITHIN, () =>
  world(async ({ consul, open }) => {
    const directory = mkdtempSync(join(tmpdir(), 'consul-'));
    const path = join(directory, 'http.sock');
    const relay = createServer((request, response) => {
      fetch(consul.httpAddress + request.url).then(
        async (answer) => {
          response.setHeader('x-consul-index', answer.headers.get('x-consul-index') ?? '');
          response.end(await answer.text());
        },
        () => response.destroy(),
      );
    });
    await new Promise<void>((resolve) => relay.listen(path, resolve));
    try {
      assert.equal((await take(open({ http: { address: `unix://${path}` } }))).roots.length, 1);
    } finally {
      relay.closeAllConnections();
      relay.close();
      rmSync(directory, { recursive: true });
    }
  }),
);

test('past its renewal point a leaf is requested without a notification', WITHIN, () =>
  world(
    async ({ clock, consul, open }) => {
      const values = open();
      const first = await take(values);
      const next = values.next();
      const before = consul.httpRequests.length;
      await settle();
      clock.step(0.95 * 2 * HOUR);
      const { value } = await drive(clock, next);
      assert.notEqual(leafOf(value).fingerprint, leafOf(first).fingerprint);
      assert.ok(consul.httpRequests.length > before);
    },
    { leafLifetimeMs: 2 * HOUR },
  ),
);

test('doctor reports what works and what does not', WITHIN, () =>
  world(
    async ({ clock, host, consul }) => {
      const config = adapter.config.parse({ http: { address: consul.httpAddress }, auth: { token: 'unknown' } });
      const source = adapter.open(config, host) as HttpSource;
      const checks = await examined(source, { clock });
      assert.deepEqual(brief(checks), [
        'consul-connection passed',
        'consul-token passed',
        'consul-roots passed',
        'consul-issue failed',
      ]);
      assert.match(checks[3]?.message ?? '', /^ERR_MESH_TOKEN: .*token is unknown, expired or deleted/);
      assert.equal(clock.sleeping, 0);
      await source[Symbol.asyncDispose]();
    },
    { acl: true },
  ),
);
