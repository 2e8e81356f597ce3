import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import { createServer, request, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { systemClock } from '../../src/async/clock.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { type Reflector, reflect } from '../../src/kube/reflector.ts';
import { onlyNamed, RESOURCES } from '../../src/kube/resources.ts';
import type { KubeError } from '../../src/kube/transport/error.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { secret } from '../contract/kube/target.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { NEWEST } from './build.ts';
import { eventually } from './parts/eventually.ts';
import { startTcpProxy } from './parts/tcp-proxy.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const MANAGER = { fieldManager: 'test' };
const ref = (name: string) => ({ apiVersion: 'v1', kind: 'Secret', namespace: 'default', name });

async function kubeconfigOf(server: KubeApiserver, url = server.url, ca?: string): Promise<string> {
  const data = Buffer.from(ca ?? (await readFile(server.caFile))).toString('base64');
  return JSON.stringify({
    clusters: [{ name: 'real', cluster: { server: url, 'certificate-authority-data': data } }],
    users: [{ name: 'real', user: { token: server.adminToken } }],
    contexts: [{ name: 'real', context: { cluster: 'real', user: 'real' } }],
    'current-context': 'real',
  });
}

async function started(test: TestContext, ...args: readonly string[]): Promise<KubeApiserver> {
  const server = await startKubeApiserver({ args });
  test.after(() => server.stop());
  return server;
}

/** Connections of this process to the port, as `ss` counts them. */
async function connectionsTo(port: number): Promise<number> {
  const { stdout } = await promisify(execFile)('ss', ['-Htnp', 'state', 'established', `dport = :${port}`]);
  return stdout.split('\n').filter((line) => line.includes(`pid=${process.pid},`)).length;
}

function following(test: TestContext, kube: Kube, names: readonly string[]): Reflector[] {
  const stop = new AbortController();
  test.after(() => stop.abort());
  const options = { clock: systemClock, random: Math.random, log: silentLog, signal: stop.signal };
  return names.map((name) => reflect(kube, RESOURCES.secrets, onlyNamed(name, 'default'), options));
}

describe('connections to kube-apiserver', { timeout: 300_000 }, () => {
  it('are a dozen for a thousand objects that are watched by their names', async (test) => {
    const server = await started(test, '--http2-max-streams-per-connection=100');
    const kube = connect({ kubeconfigText: await kubeconfigOf(server), userAgent: 'test' });
    test.after(() => kube.close());
    const names = Array.from({ length: 1_000 }, (_, number) => `object-${number}`);
    const reflectors = following(test, kube, names);
    await Promise.all(reflectors.map(({ synced }) => synced));
    await Promise.all(names.map((name) => kube.create(secret('default', name, { x: '1' }), MANAGER)));
    await eventually('each object is seen', async () => reflectors.every((one) => one.items().size === 1));
    const open = await connectionsTo(server.port);
    assert.ok(open >= 12 && open <= 14, `${open} connections`);
  });

  it('lose no request and no event to a server that asks for new ones all the time', async (test) => {
    const server = await started(test, '--goaway-chance=0.02', '--http2-max-streams-per-connection=100');
    const kube = connect({ kubeconfigText: await kubeconfigOf(server), userAgent: 'test' });
    test.after(() => kube.close());
    const names = Array.from({ length: 300 }, (_, number) => `object-${number}`);
    const reflectors = following(test, kube, names);
    const problems: Error[] = [];
    await Promise.all(reflectors.map(({ synced }) => synced));
    for (let round = 1; round <= 3; round += 1) {
      const object = (name: string) => secret('default', name, { round: String(round) });
      await Promise.all(names.map((name) => kube.apply(object(name), MANAGER)));
      const version = await Promise.all(
        names.map(async (name) => (await kube.get(ref(name)))?.metadata.resourceVersion),
      );
      const seen = (one: Reflector) => [...one.items().values()][0]?.metadata.resourceVersion;
      await eventually('each change is seen', async () =>
        reflectors.every((one, index) => seen(one) === version[index]),
      );
      problems.push(...reflectors.flatMap(({ problem }) => problem ?? []));
    }
    assert.deepEqual(problems, []);
  });

  it('answer a PING, and end when a load balancer has forgotten them', async (test) => {
    const server = await started(test);
    await using balancer = await startTcpProxy(() => server.port);
    const clock = new FakeClock();
    const url = `https://127.0.0.1:${balancer.port}`;
    const kube = connect({ kubeconfigText: await kubeconfigOf(server, url), userAgent: 'test', clock });
    test.after(() => kube.close());
    const { resourceVersion } = await kube.list(RESOURCES.secrets, { namespace: 'default' });
    let opened = () => {};
    const isOpen = new Promise<void>((resolve) => {
      opened = resolve;
    });
    const watch = kube.watch(RESOURCES.secrets, { namespace: 'default', resourceVersion, opened });
    const event = watch[Symbol.asyncIterator]().next();
    event.catch(() => undefined);
    await isOpen;
    for (let minute = 0; minute < 3; minute += 1) {
      await clock.advance(30_000);
      // The server answers the PING before this request.
      await kube.get(ref('absent'));
    }
    // The server ends a connection that brought a token that it does not accept.
    assert.equal(await kube.accepts('not a token'), false);
    await eventually('the end of its connection', async () => balancer.open === 1);
    balancer.stall();
    await clock.advance(30_000);
    await clock.advance(15_000);
    await assert.rejects(event, (error: KubeError) => {
      assert.equal(error.code, 'ERR_KUBE_UNREACHABLE');
      return /no answer to a PING within 15 s/.test(error.message);
    });
    assert.equal(await kube.get(ref('absent')), undefined);
  });

  it('carry a list where the server cannot begin a watch with the state', { skip: NEWEST }, async (test) => {
    const server = await started(test, '--feature-gates=WatchList=false');
    const verbs: string[] = [];
    const answered = (verb: string, _: string, status: number) => verbs.push(`${verb} ${status}`);
    const kube = connect({ kubeconfigText: await kubeconfigOf(server), userAgent: 'test', answered });
    test.after(() => kube.close());
    await kube.create(secret('default', 'object', { x: '1' }), MANAGER);
    const reflectors = following(test, kube, ['object', 'other']);
    const [first] = reflectors;
    await first?.synced;
    assert.equal(first?.items().size, 1);
    await kube.create(secret('default', 'other', { x: '1' }), MANAGER);
    await eventually('the other object is seen', async () => reflectors.every((one) => one.items().size === 1));
    assert.deepEqual([...new Set(verbs)].sort(), ['create 201', 'list 200', 'watch 200', 'watch 422']);
  });

  it('trust the CA that the file of the kubeconfig has now', async (test) => {
    const server = await started(test);
    const clock = new FakeClock();
    const kubeconfigText = JSON.stringify({
      ...JSON.parse(await kubeconfigOf(server)),
      clusters: [{ name: 'real', cluster: { server: server.url, 'certificate-authority': server.caFile } }],
    });
    const kube = connect({ kubeconfigText, userAgent: 'test', clock });
    test.after(() => kube.close());
    assert.equal(await kube.get(ref('absent')), undefined);
    const before = await readFile(server.caFile, 'utf8');
    await server.kill();
    // The server makes new ones.
    await Promise.all(['apiserver.crt', 'apiserver.key'].map((name) => rm(join(server.dir, name))));
    await server.restart();
    assert.notEqual(await readFile(server.caFile, 'utf8'), before);
    await assert.rejects(kube.get(ref('absent')), { code: 'ERR_KUBE_UNREACHABLE' });
    await clock.advance(10_001);
    assert.equal(await kube.get(ref('absent')), undefined);
  });

  it('are HTTP/1.1 where a proxy in front of the server knows nothing else', async (test) => {
    const server = await started(test);
    const ca = SandboxCa.root();
    await using proxy = await startHttp1Proxy(server, ca);
    const kube = connect({
      kubeconfigText: await kubeconfigOf(server, `https://127.0.0.1:${proxy.port}`, ca.certificate.pem),
      userAgent: 'test',
    });
    test.after(() => kube.close());
    const [reflector] = following(test, kube, ['object']);
    await reflector?.synced;
    await kube.create(secret('default', 'object', { x: '1' }), MANAGER);
    await eventually('the object is seen', async () => reflector?.items().size === 1);
    assert.deepEqual([...proxy.versions], ['1.1']);
  });
});

/** Ends TLS, and passes requests on. */
async function startHttp1Proxy(apiserver: KubeApiserver, ca: SandboxCa) {
  const { key, chain } = ca.identity({ ips: ['127.0.0.1'], lifetimeMs: 3_600_000 });
  const upstreamCa = await readFile(apiserver.caFile);
  const versions = new Set<string>();
  const server: Server = createServer(
    { key: key.toPem(), cert: chain.map(({ pem }) => pem).join('') },
    (incoming, outgoing) => {
      versions.add(incoming.httpVersion);
      const { method = 'GET', headers } = incoming;
      const passed = request(new URL(incoming.url ?? '/', apiserver.url), { method, headers, ca: upstreamCa });
      passed.on('response', (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        outgoing.flushHeaders();
        answer.pipe(outgoing);
      });
      passed.on('error', () => outgoing.destroy());
      outgoing.on('close', () => passed.destroy());
      incoming.pipe(passed);
    },
  );
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    versions,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}
