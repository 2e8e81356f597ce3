import assert from 'node:assert/strict';
import { type AddressInfo, createServer } from 'node:net';

import { test } from 'node:test';
import { consul as adapter } from '../../adapters/consul/adapter.ts';
import type { GrpcIssuer } from '../../adapters/consul/grpc-issuer.ts';
import { type Consul, type ConsulOptions, startConsul } from '../../sandbox/consul/consul.ts';
import { type RunningServer, type ServerStream, serve } from '../../sandbox/grpc/server.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { systemClock } from '../../src/async/clock.ts';
import { GrpcError } from '../../src/grpc/error.ts';
import { leafOf } from '../../src/mesh/identity.ts';
import { brief, examined } from '../support/examined.ts';
import { settle } from '../support/fake-clock.ts';
import { ScaledClock } from '../support/scaled-clock.ts';
import { Follower, testHost } from './consul-follower.ts';

const WITHIN = { timeout: 30_000 };
const CA = 'hashicorp.consul.connectca.ConnectCAService';
const live = () => new AbortController().signal;

async function withIssuer(
  run: (world: { consul: Consul; issuer: GrpcIssuer }) => Promise<void>,
  grpc: (consul: Consul) => object = () => ({}),
  options: ConsulOptions = {},
): Promise<void> {
  const consul = await startConsul(options);
  const config = { datacenter: 'dc1', grpc: { addresses: [consul.grpcAddress], plaintext: true, ...grpc(consul) } };
  const issuer = adapter.open(adapter.config.parse(config), testHost({ clock: systemClock })) as GrpcIssuer;
  try {
    await run({ consul, issuer });
  } finally {
    await issuer[Symbol.asyncDispose]();
    await consul.stop();
  }
}

async function closedPort(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

/** A server that names the same roots as another one but has no capacity to sign. */
async function busyServer(consul: Consul, calls: string[]): Promise<RunningServer> {
  return serve({
    listen: { port: 0 },
    services: {
      [CA]: {
        WatchRoots: {
          async stream(stream: ServerStream<never, object>) {
            calls.push('WatchRoots');
            const roots = consul.roots().map((root, at) => ({
              active: at === 0,
              signing_key_id: root.subjectKeyId,
              root_cert: root.pem,
              intermediate_certs: [],
            }));
            stream.write({ trust_domain: consul.trustDomain, roots });
            await new Promise((resolve) => stream.context.signal.addEventListener('abort', resolve));
          },
        },
        Sign: {
          unary: () => {
            calls.push('Sign');
            throw new GrpcError(8, 'rate limit exceeded, try again later or against a different server');
          },
        },
      },
    },
  });
}

test('a server that is down is skipped', WITHIN, async () => {
  const away = await closedPort();
  await withIssuer(
    async ({ consul, issuer }) => {
      const identity = await issuer.issue(live());
      assert.equal(identity.roots[0]?.fingerprint, consul.roots()[0]?.fingerprint);
    },
    (consul) => ({ addresses: [away, consul.grpcAddress] }),
  );
});

test('when all are down, the error names the last one and says what to check', WITHIN, async () => {
  const addresses = [await closedPort(), await closedPort()];
  await withIssuer(
    ({ issuer }) =>
      assert.rejects(issuer.issue(live()), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'ERR_MESH_UNREACHABLE');
        assert.ok(error.message.includes(addresses[1] ?? ''));
        return true;
      }),
    () => ({ addresses }),
  );
});

test('a name that does not resolve is named', WITHIN, () =>
  withIssuer(
    ({ issuer }) =>
      assert.rejects(issuer.issue(live()), { code: 'ERR_MESH_UNREACHABLE', message: /consul\.invalid:8502/ }),
    () => ({ addresses: ['consul.invalid:8502'] }),
  ),
);

test('a server without capacity is skipped, and the stream of roots from it continues', WITHIN, async () => {
  const consul = await startConsul();
  const calls: string[] = [];
  const busy = await busyServer(consul, calls);
  const stop = new AbortController();
  const config = { datacenter: 'dc1', grpc: { addresses: [busy.address, consul.grpcAddress], plaintext: true } };
  const issuer = adapter.open(adapter.config.parse(config), testHost({ clock: systemClock })) as GrpcIssuer;
  try {
    const roots = issuer.roots(stop.signal);
    assert.equal((await roots.next()).value.length, 1);
    const more = roots.next();
    const identity = await issuer.issue(live());
    assert.equal(identity.roots[0]?.fingerprint, consul.roots()[0]?.fingerprint);
    assert.deepEqual(calls, ['WatchRoots', 'WatchRoots', 'Sign']);
    assert.deepEqual(consul.grpcCalls, ['Sign']);
    assert.equal(await Promise.race([more.then(() => 'ended'), settle().then(() => 'open')]), 'open');
    stop.abort(new Error('enough'));
    await more.catch(() => undefined);
  } finally {
    await issuer[Symbol.asyncDispose]();
    await busy.stop();
    await consul.stop();
  }
});

test('refused by every server, signing is tried once in each window of 30 s', WITHIN, () =>
  withIssuer(async ({ consul, issuer }) => {
    consul.rateLimit();
    for (let attempt = 0; attempt < 2; attempt++) {
      await assert.rejects(issuer.issue(live()), (error: Error & { retry?: { afterMs: number } }) => {
        const afterMs = error.retry?.afterMs ?? Number.NaN;
        assert.ok(afterMs >= attempt * 28_000 && afterMs <= (attempt + 1) * 30_000, `${afterMs}`);
        return true;
      });
    }
    consul.rateLimit(0);
    await issuer.issue(live());
  }),
);

test('the reason to replace a leaf early is derived from the last roots', WITHIN, () =>
  withIssuer(async ({ consul, issuer }) => {
    const stop = new AbortController();
    const roots = issuer.roots(stop.signal);
    await roots.next();
    const identity = await issuer.issue(live());
    assert.equal(issuer.stale(identity), undefined);
    const more = roots.next();
    consul.rotateIntermediate();
    assert.equal((await more).value[0]?.fingerprint, identity.roots[0]?.fingerprint);
    assert.match(issuer.stale(identity) ?? '', /active root signs with/);
    stop.abort(new Error('enough'));
    await roots.return(undefined);
  }),
);

test('a signing certificate renewed under the same root brings a new leaf', WITHIN, async () => {
  const clock = new ScaledClock(10);
  const consul = await startConsul({ clock });
  try {
    await using follower = new Follower(
      { datacenter: 'dc1', grpc: { addresses: [consul.grpcAddress], plaintext: true } },
      { clock },
    );
    const first = await follower.identity();
    consul.rotateIntermediate();
    const next = await follower.identity((one) => leafOf(one).fingerprint !== leafOf(first).fingerprint);
    assert.equal(next.chain.length, 2);
    assert.deepEqual(
      next.roots.map(({ fingerprint }) => fingerprint),
      first.roots.map(({ fingerprint }) => fingerprint),
    );
  } finally {
    await consul.stop();
  }
});

test('an outage in mid-stream is reported, and the roots come again after it', WITHIN, async () => {
  const clock = new ScaledClock(10);
  const consul = await startConsul({ clock });
  try {
    await using follower = new Follower(
      { datacenter: 'dc1', grpc: { addresses: [consul.grpcAddress], plaintext: true } },
      { clock },
    );
    await follower.identity();
    await consul.outage(true);
    await follower.error();
    consul.rotateRoot();
    await consul.outage(false);
    const next = await follower.identity(({ roots }) => roots.length === 2);
    assert.ok(next.chain.length > 0);
  } finally {
    await consul.stop();
  }
});

test('a server dialled by address is verified by the configured name', WITHIN, async () => {
  const tls = SandboxCa.root({ name: 'Consul Agent CA' });
  const named = (serverName: string) => () => ({
    plaintext: false,
    tls: { ca: { inline: tls.certificate.pem }, serverName },
  });
  await withIssuer(({ issuer }) => issuer.issue(live()).then(() => undefined), named('server.dc1.consul'), { tls });
  await withIssuer(
    ({ issuer }) => assert.rejects(issuer.issue(live()), { code: 'ERR_MESH_TLS', message: /serverName/ }),
    named('server.dc2.consul'),
    { tls },
  );
});

test('a configured trust domain other than that of the cluster stops everything', WITHIN, async () => {
  const consul = await startConsul();
  const config = {
    datacenter: 'dc1',
    trustDomain: 'other.consul',
    grpc: { addresses: [consul.grpcAddress], plaintext: true },
  };
  const issuer = adapter.open(adapter.config.parse(config), testHost({ clock: systemClock })) as GrpcIssuer;
  try {
    await assert.rejects(issuer.issue(live()), { code: 'ERR_MESH_CONFIG', message: /trustDomain/ });
    assert.ok(!consul.grpcCalls.includes('Sign'));
  } finally {
    await issuer[Symbol.asyncDispose]();
    await consul.stop();
  }
});

test('doctor reports what works', WITHIN, () =>
  withIssuer(async ({ issuer }) => {
    const steps = ['consul-connection', 'consul-token', 'consul-roots', 'consul-issue'];
    assert.deepEqual(
      brief(await examined(issuer)),
      steps.map((code) => `${code} passed`),
    );
  }),
);
