import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { inspect } from 'node:util';
import { stringify } from 'yaml';
import { type KubeApi, startKubeApi } from '../../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import {
  type LoopbackProxy,
  type ProxyOptions,
  startHttpProxy,
  startSocksProxy,
} from '../../../test/support/loopback-proxies.ts';
import { redactText } from '../../mesh/secrets.ts';
import type { Kube } from '../api.ts';
import { type ConnectOptions, connect } from '../client.ts';
import { RESOURCES } from '../resources.ts';
import { requireKubeconfig } from './credentials.ts';
import { KubeError } from './error.ts';

/** Of the domain that never resolves (RFC 6761): only the proxy knows where it is. */
const API = 'api.invalid:443';
const REF = { apiVersion: 'v1', kind: 'Namespace', name: 'default' };
const PASSWORD = 'the proxy@secret';
/** Of the address that a SOCKS proxy is asked for. */
const BYTES = '20010db8000000000000000000070001';
const KINDS = [
  ['http', startHttpProxy],
  ['socks5', startSocksProxy],
] as const;

type Start = (options: ProxyOptions) => Promise<LoopbackProxy>;

interface Rig {
  readonly api: KubeApi;
  readonly proxy: LoopbackProxy;
  readonly kube: Kube;
  readonly clock: FakeClock;
}

const behind = (api: KubeApi, proxyUrl: string, server = API): string =>
  api
    .kubeconfig()
    .replace(
      /server: .*/,
      `server: https://${server}\n      tls-server-name: kubernetes.default.svc\n      proxy-url: ${proxyUrl}`,
    );

async function rig(
  test: TestContext,
  [scheme, start]: readonly [string, Start],
  options: Omit<ProxyOptions, 'routes'> & { readonly userinfo?: string } = {},
  client: Partial<ConnectOptions> = {},
): Promise<Rig> {
  const api = await startKubeApi();
  const proxy = await start({ ...options, routes: { [API]: Number(new URL(api.url).port) } });
  const clock = new FakeClock();
  const kubeconfigText = behind(api, `${scheme}://${options.userinfo ?? ''}127.0.0.1:${proxy.port}`);
  const kube = connect({ kubeconfigText, userAgent: 'test', clock, ...client });
  test.after(async () => {
    kube.close();
    await proxy[Symbol.asyncDispose]();
    await api.stop();
  });
  return { api, proxy, kube, clock };
}

async function failing(call: Promise<unknown>): Promise<KubeError> {
  const error = await call.then(
    () => assert.fail('it should have failed'),
    (reason) => reason,
  );
  assert.ok(error instanceof KubeError, String(error));
  return error;
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise(setImmediate);
}

for (const kind of KINDS) {
  describe(`a proxy of ${kind[0]}`, { timeout: 60_000 }, () => {
    it('carries many requests over one connection, however often credentials are read again', async (test) => {
      const { proxy, kube, clock } = await rig(test, kind);
      for (let count = 0; count < 10; count += 1) {
        assert.ok(await kube.get(REF));
        await clock.advance(11_000);
      }
      assert.deepEqual([proxy.targets, proxy.open], [[API], 1]);
      kube.close();
      await until(() => proxy.open === 0);
    });

    it('carries watches beside a few connections for many requests', async (test) => {
      const { proxy, kube } = await rig(test, kind, {}, { concurrency: 4 });
      const stop = new AbortController();
      const { resourceVersion } = await kube.list(RESOURCES.secrets, {});
      const seen = Array.from({ length: 3 }, async () => {
        for await (const event of kube.watch(RESOURCES.secrets, { resourceVersion }, stop.signal)) return event;
        return undefined;
      });
      await Promise.all(Array.from({ length: 40 }, () => kube.get(REF)));
      // A request may start before the connection of the one before it is free.
      assert.ok(proxy.open <= 2 * 4 + 3, `${proxy.open}`);
      const metadata = { name: 'new', namespace: 'default' };
      await kube.create({ apiVersion: 'v1', kind: 'Secret', metadata }, { fieldManager: 'test' });
      for (const event of await Promise.all(seen)) assert.equal(event?.type, 'ADDED');
      stop.abort();
    });

    it('is given up when it does not answer in half of the time for a request', async (test) => {
      const { proxy, kube, clock } = await rig(test, kind, { behaviour: 'silent' });
      const failed = failing(kube.get(REF));
      await until(() => proxy.open === 1);
      await clock.advance(15_000);
      const { code, message } = await failed;
      assert.equal(code, 'ERR_KUBE_UNREACHABLE');
      assert.match(message, /^get Namespace default: no answer within 15 s from the proxy \S+127.*Check proxy-url/);
      await until(() => proxy.open === 0);
      assert.equal(clock.sleeping, 0);
    });

    it('is left at once by a client that is closed', async (test) => {
      const { proxy, kube } = await rig(test, kind, { behaviour: 'silent' });
      const failed = failing(kube.get(REF));
      await until(() => proxy.open === 1);
      kube.close();
      assert.equal((await failed).code, 'ERR_KUBE_UNREACHABLE');
      await until(() => proxy.open === 0);
    });

    it('carries new connections alone when the kubeconfig changes', async (test) => {
      const directory = await mkdtemp(join(tmpdir(), 'meshcert-proxy-'));
      test.after(() => rm(directory, { recursive: true }));
      const kubeconfig = join(directory, 'kubeconfig');
      const { api, proxy, kube } = await rig(test, kind, {}, { kubeconfigText: undefined, kubeconfig });
      const text = behind(api, `${kind[0]}://127.0.0.1:${proxy.port}`);
      await writeFile(kubeconfig, text);
      await kube.get(REF);
      await writeFile(kubeconfig, text.replace('kubernetes.default.svc', 'localhost'));
      api.fault({ status: 401, times: 1 });
      await kube.get(REF);
      assert.equal(proxy.targets.length, 2);
      await until(() => proxy.open === 1);
    });

    it('is asked for an IPv6 address as such', async (test) => {
      const api = await startKubeApi();
      const [server, asked] = ['[2001:db8::7:1]:6443', `[${kind[0] === 'http' ? '2001:db8::7:1' : BYTES}]:6443`];
      await using proxy = await kind[1]({ routes: { [asked]: Number(new URL(api.url).port) } });
      const kubeconfigText = behind(api, `${kind[0]}://127.0.0.1:${proxy.port}`, server);
      const kube = connect({ kubeconfigText, userAgent: 'test' });
      test.after(async () => {
        kube.close();
        await api.stop();
      });
      await kube.get(REF);
      assert.deepEqual(proxy.targets, [asked]);
    });

    const failures: readonly [string, Omit<ProxyOptions, 'routes'> & { userinfo?: string }, RegExp][] = [
      [
        'refuses',
        { behaviour: 'refuse' },
        /did not connect to api\.invalid:443 \((HTTP status 403|not allowed by its rules)\)\. Check/,
      ],
      [
        'cannot reach the server',
        { behaviour: 'unreachable' },
        /did not connect to api\.invalid:443 \((HTTP status 502|host unreachable)\)\. Check/,
      ],
      [
        'needs credentials',
        { credentials: 'user:other' },
        /does not accept the user and password of proxy-url, or needs some\. Correct/,
      ],
      [
        'refuses the credentials',
        { credentials: 'user:other', userinfo: `user:${encodeURIComponent(PASSWORD)}@` },
        /does not accept the user and password/,
      ],
    ];
    for (const [what, options, expected] of failures) {
      it(`is named as the cause when it ${what}, without the credentials`, async (test) => {
        const { proxy, kube } = await rig(test, kind, options);
        const { code, message, stack, cause } = await failing(kube.get(REF));
        assert.equal(code, 'ERR_KUBE_UNREACHABLE');
        assert.match(message, expected);
        assert.ok(message.includes(` the proxy ${kind[0]}://127.0.0.1:${proxy.port} `), message);
        assert.ok(!inspect([message, stack, cause], { depth: 9 }).includes(PASSWORD));
        await until(() => proxy.open === 0);
      });
    }

    it('is named as the cause when it is down, or is something else', async (test) => {
      const { proxy, kube } = await rig(test, kind);
      await proxy[Symbol.asyncDispose]();
      const down = await failing(kube.get(REF));
      assert.match(
        down.message,
        /no connection through the proxy \S+ \(connect ECONNREFUSED 127\S+\)\. Check proxy-url/,
      );
      const [, other] = KINDS.find(([scheme]) => scheme !== kind[0]) ?? assert.fail();
      const wrong = await rig(test, [kind[0], other]);
      const { code, message } = await failing(wrong.kube.get(REF));
      assert.equal(code, 'ERR_KUBE_UNREACHABLE');
      assert.match(message, /the proxy \S+127\.0\.0\.1:\d+ .*proxy-url/);
    });
  });
}

it('the password of a proxy-url is redacted from then on, in the URL and in the header', async (test) => {
  const { kube } = await rig(test, KINDS[0], { userinfo: `user:${encodeURIComponent(PASSWORD)}@` });
  await kube.get(REF);
  for (const form of [PASSWORD, encodeURIComponent(PASSWORD), Buffer.from(`user:${PASSWORD}`).toString('base64')])
    assert.match(redactText(`x ${form} y`), /^x \[redacted\]=* y$/);
});

for (const text of ['127.0.0.1:3128', 'ftp://proxy:3128', 'http://', `http://user:${PASSWORD}%zz@proxy:3128`]) {
  it(`a proxy-url that cannot be used is an error of the kubeconfig: ${text.replace(PASSWORD, '…')}`, async (test) => {
    const api = await startKubeApi();
    const kubeconfigText = behind(api, text);
    const kube = connect({ kubeconfigText, userAgent: 'test' });
    test.after(async () => {
      kube.close();
      await api.stop();
    });
    const { code, message } = await failing(kube.get(REF));
    assert.equal(code, 'ERR_KUBE_CONFIG');
    assert.match(message, /proxy-url/);
    assert.ok(!message.includes(PASSWORD));
    await assert.rejects(requireKubeconfig({ kubeconfigText }), { code: 'ERR_KUBE_CONFIG', message });
  });
}

it('a token is tried without the client certificate of the kubeconfig, through a proxy too', async (test) => {
  const ca = SandboxCa.root({ name: 'API' });
  const pem = (dns: string) => {
    const { chain, key } = ca.identity({ dns: [dns], lifetimeMs: 3_600_000 });
    return { cert: chain.map((one) => one.pem).join(''), key: key.toPem() };
  };
  const presented: boolean[] = [];
  const server = createServer(
    { ...pem('api.invalid'), ca: ca.certificate.pem, requestCert: true },
    (request, response) => {
      presented.push((request.socket as TLSSocket).authorized);
      response.end('{}');
    },
  );
  server.on('tlsClientError', () => presented.push(false));
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  await using proxy = await startHttpProxy({ routes: { [API]: (server.address() as AddressInfo).port } });
  const data = (text: string) => Buffer.from(text).toString('base64');
  const client = pem('client');
  const kubeconfigText = stringify({
    'current-context': 'test',
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    clusters: [
      {
        name: 'test',
        cluster: {
          server: `https://${API}`,
          'certificate-authority-data': data(ca.certificate.pem),
          'proxy-url': `http://127.0.0.1:${proxy.port}`,
        },
      },
    ],
    users: [
      { name: 'test', user: { 'client-certificate-data': data(client.cert), 'client-key-data': data(client.key) } },
    ],
  });
  const kube = connect({ kubeconfigText, userAgent: 'test' });
  test.after(() => {
    kube.close();
    server.close();
  });
  await kube.get(REF);
  await kube.accepts('any').catch(() => undefined);
  assert.deepEqual(presented, [true, false]);
});
