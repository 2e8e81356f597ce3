import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Trigger } from '../async/trigger.ts';
import type { KubeObject } from '../objects/objects.ts';
import type { Kube } from './api.ts';
import { type ConnectOptions, connect } from './client.ts';
import { RESOURCES } from './resources.ts';
import type { KubeError } from './transport/error.ts';

const MANAGER = { fieldManager: 'meshcert' };
const REF = { apiVersion: 'v1', kind: 'Secret', namespace: 'emissary', name: 'istio-identity' };
const KEY = Buffer.from('-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n').toString(
  'base64',
);
const SECRET: KubeObject = {
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'istio-identity', namespace: 'emissary' },
  type: 'Opaque',
  data: { 'tls.key': KEY },
};

async function rigOver(
  options: KubeApiOptions,
  test: TestContext,
  client: Partial<ConnectOptions>,
): Promise<{ api: KubeApi; kube: Kube }> {
  const started = await startKubeApi({ namespaces: ['emissary'], ...options });
  const kube = connect({ kubeconfigText: started.kubeconfig(), userAgent: 'meshcert/1.2.3', ...client });
  test.after(async () => {
    kube.close();
    await started.stop();
  });
  return { api: started, kube };
}

async function failing(call: Promise<unknown>): Promise<KubeError> {
  const error = await call.then(
    () => assert.fail('it should have failed'),
    (reason) => reason,
  );
  assert.equal(error.name, 'KubeError');
  return error;
}

for (const http1Only of [false, true])
  describe(`the Kubernetes client over HTTP/${http1Only ? '1.1' : '2'}`, { timeout: 60_000 }, () => {
    const rig = (test: TestContext, api: KubeApiOptions = {}, client: Partial<ConnectOptions> = {}) =>
      rigOver({ http1Only, ...api }, test, client);
    const table: readonly [number, string, RegExp][] = [
      [400, 'ERR_KUBE_INVALID', /malformed/],
      [401, 'ERR_KUBE_UNAUTHORIZED', /credentials/],
      [
        403,
        'ERR_KUBE_FORBIDDEN',
        /Role: \{apiGroups: \[""\], resources: \[secrets\], resourceNames: \[istio-identity\], verbs: \[patch\]\} in namespace emissary\./,
      ],
      [409, 'ERR_KUBE_CONFLICT', /changed or owns/],
      [410, 'ERR_KUBE_GONE', /new list/],
      [422, 'ERR_KUBE_INVALID', /Correct/],
      [429, 'ERR_KUBE_BUSY', /later/],
      [500, 'ERR_KUBE_SERVER', /Check the API server/],
      [503, 'ERR_KUBE_SERVER', /Check the API server/],
    ];
    for (const [status, code, next] of table) {
      it(`classifies ${status} as ${code} and says what to do`, async (test) => {
        const { api, kube } = await rig(test);
        api.fault({ status });
        const error = await failing(kube.apply(SECRET, MANAGER));
        assert.equal(error.code, code);
        assert.equal(error.status, status);
        assert.match(error.message, /^patch Secret emissary\/istio-identity: /);
        assert.match(error.message, next);
      });
    }

    it('passes on how long the server asks to wait', async (test) => {
      const { api, kube } = await rig(test);
      api.fault({ status: 429, retryAfterSeconds: 7 });
      assert.equal((await failing(kube.get(REF))).retryAfterMs, 7_000);
    });

    it('holds every request but those about Leases for as long as the server asks one to wait', async (test) => {
      const clock = new FakeClock();
      const limits: number[] = [];
      const { api, kube } = await rig(test, {}, { clock, limited: (limit) => limits.push(limit) });
      api.fault({ status: 429, retryAfterSeconds: 7, times: 1 });
      await failing(kube.get(REF));
      const asked = api.requests.entries.length;
      const held = [kube.get(REF), kube.apply(SECRET, MANAGER)];
      const metadata = { name: 'meshcert', namespace: 'emissary' };
      await kube.create({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata }, MANAGER);
      assert.deepEqual(
        api.requests.entries.slice(asked).map(({ resource }) => resource),
        ['leases'],
      );
      await clock.advance(7_000);
      await Promise.all(held);
      assert.equal(api.requests.entries.length, asked + 3);
      assert.deepEqual(limits, [16, 8]);
    });

    it('sends half as many concurrent writes to a server that does not answer before the deadline', async (test) => {
      const clock = new FakeClock();
      const limits: number[] = [];
      const heard = new Trigger();
      const silent = () => heard.fire();
      const kube = await connectTo(test, silent, { clock, limited: (limit) => limits.push(limit) });
      const failed = failing(kube.apply(SECRET, MANAGER));
      const { signal } = new AbortController();
      await heard.wait(signal);
      await clock.advance(30_000);
      assert.equal((await failed).code, 'ERR_KUBE_UNREACHABLE');
      assert.deepEqual(limits, [16, 8]);
      const abort = new AbortController();
      const given = kube.apply(SECRET, MANAGER, abort.signal);
      await heard.wait(signal);
      abort.abort(new Error('no longer wanted'));
      await assert.rejects(given, /no longer wanted/);
      assert.deepEqual(limits, [16, 8], 'who gave up says nothing of the server');
    });

    it('never repeats the bytes of a Secret in an error', async (test) => {
      const echo: RequestListener = (request, response) => {
        let body = '';
        request.on('data', (chunk) => {
          body += chunk;
        });
        request.on('end', () => {
          const message = `Secret "x" is invalid: data: Invalid value: ${JSON.stringify(body.replaceAll('"', "'"))}: no`;
          response.writeHead(422, { 'content-type': 'application/json' });
          response.end(JSON.stringify({ kind: 'Status', reason: 'Invalid', message, code: 422 }));
        });
      };
      const kube = await connectTo(test, echo);
      const error = await failing(kube.apply(SECRET, MANAGER));
      assert.match(error.message, /data: Invalid value: "…": no/);
      assert.ok(!JSON.stringify([error.message, error.stack, error.cause ?? '']).includes(KEY));
    });

    it('distinguishes an API server that is not there from one that refuses', async (test) => {
      const { api, kube } = await rig(test);
      await api.outage(true);
      const error = await failing(kube.list(RESOURCES.secrets, { namespace: 'emissary' }));
      assert.equal(error.code, 'ERR_KUBE_UNREACHABLE');
      assert.equal(error.status, 0);
      assert.match(error.message, /^list secrets in namespace emissary: no answer .*ECONNREFUSED/);
      await api.outage(false);
      assert.deepEqual((await kube.list(RESOURCES.secrets, { namespace: 'emissary' })).items, []);
    });

    it('trusts only the CA of the kubeconfig', async (test) => {
      const { api } = await rig(test);
      const { api: other } = await rig(test);
      const text = api.kubeconfig().replace(/server: .*/, `server: ${other.url}`);
      const kube = connect({ kubeconfigText: text, userAgent: 'x/1' });
      const error = await failing(kube.get(REF));
      assert.equal(error.code, 'ERR_KUBE_UNREACHABLE');
      assert.match(error.message, /certificate|SELF_SIGNED|signature/i);
      kube.close();
    });

    it('ends a request that has no answer within its deadline', async (test) => {
      const clock = new FakeClock();
      const { api, kube } = await rig(test, {}, { clock, deadlineMs: 5_000 });
      await new Promise<void>((resolve) => {
        api.fault({ cut: 'before', latencyMs: 3_600_000, met: () => resolve() });
        void failing(kube.get(REF)).then((error) => {
          assert.match(error.message, /no answer within 5 s/);
          resolved = true;
        });
      });
      let resolved = false;
      await clock.advance(5_000);
      while (!resolved) await new Promise(setImmediate);
      kube.close();
      assert.equal(clock.sleeping, 0);
    });

    it("stops when its signal is aborted, with the signal's reason", async (test) => {
      const { api, kube } = await rig(test);
      const stop = new AbortController();
      api.fault({ latencyMs: 3_600_000, met: () => stop.abort(new Error('enough')) });
      await assert.rejects(kube.get(REF, stop.signal), /enough/);
    });

    it('does not send a write twice when the connection is cut before the answer', async (test) => {
      const { api, kube } = await rig(test);
      await kube.get(REF);
      api.fault({ cut: 'after', times: 1 });
      const error = await failing(kube.create(SECRET, MANAGER));
      assert.equal(error.code, 'ERR_KUBE_UNREACHABLE');
      assert.equal(api.requests.count({ verb: 'create', resource: 'secrets' }), 1);
      assert.ok(await kube.get(REF));
    });

    it('reads over a kept-alive connection that the server has closed in the meantime', async (test) => {
      let reset = false;
      const kube = await connectTo(test, (request, response) => {
        if (reset) {
          reset = false;
          request.socket.resetAndDestroy();
        } else response.end(JSON.stringify({ metadata: { resourceVersion: '1' }, items: [] }));
      });
      await kube.list(RESOURCES.secrets, {});
      reset = true;
      assert.deepEqual(await kube.list(RESOURCES.secrets, {}), { items: [], resourceVersion: '1' });
    });

    it('sends a limited number of requests at a time', async (test) => {
      const { api, kube } = await rig(test, {}, { concurrency: 4 });
      let most = 0;
      let now = 0;
      api.fault({
        met: async () => {
          most = Math.max(most, ++now);
          await new Promise(setImmediate);
          now -= 1;
        },
      });
      await Promise.all(Array.from({ length: 40 }, () => kube.get(REF)));
      assert.equal(most, 4);
      assert.equal(api.requests.count({ verb: 'get', userAgent: 'meshcert/1.2.3' }), 40);
    });

    it('does not take a response that was cut for a complete one', async (test) => {
      const kube = await connectTo(test, (_, response) => response.end('{"metadata": {"name": "ist'));
      const error = await failing(kube.get(REF));
      assert.equal(error.code, 'ERR_KUBE_UNREACHABLE');
      assert.match(error.message, /the answer is not JSON/);
    });

    it('renews a Lease ahead of any number of waiting requests', async (test) => {
      const { api, kube } = await rig(test, {}, { concurrency: 2 });
      let answer = () => {};
      const held = new Promise<void>((resolve) => {
        answer = resolve;
      });
      api.fault({ match: ({ plural }) => plural === 'secrets', met: () => held });
      const waiting = Array.from({ length: 100 }, () => kube.get(REF));
      const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace: 'emissary', name: 'meshcert' };
      assert.equal(await kube.get(lease), undefined);
      answer();
      await Promise.all(waiting);
    });

    it('runs an exec plugin, and runs it again when its token is no longer valid', async (test) => {
      const api = await startKubeApi({ namespaces: ['emissary'] });
      const dir = await mkdtemp(join(tmpdir(), 'exec-'));
      const file = join(dir, 'credential.json');
      const account = { name: 'agent', namespace: 'emissary' };
      api.put({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: account });
      const give = async () => {
        const token = api.tokenFor(account);
        const credential = { apiVersion: 'client.authentication.k8s.io/v1', kind: 'ExecCredential', status: { token } };
        await writeFile(file, JSON.stringify(credential));
        return token;
      };
      const first = await give();
      const exec = { apiVersion: 'client.authentication.k8s.io/v1', command: 'cat', args: [file] };
      const text = api.kubeconfig().replace(/user:\n +token: .*/, `user: ${JSON.stringify({ exec })}`);
      const kube = connect({ kubeconfigText: text, userAgent: 'x/1' });
      test.after(async () => {
        kube.close();
        await api.stop();
        await rm(dir, { recursive: true });
      });
      assert.equal(await kube.get(REF), undefined);
      await give();
      api.revoke(first);
      assert.equal(await kube.get(REF), undefined);
      const seen = api.requests.entries.map(({ user, status }) => `${status} ${user}`);
      const agent = 'system:serviceaccount:emissary:agent';
      assert.deepEqual(seen, [`404 ${agent}`, '401 ', `404 ${agent}`]);
    });

    it('reports what is wrong with a kubeconfig at the first call', async () => {
      const broken = connect({ kubeconfigText: 'apiVersion: v1\nkind: Config\n', userAgent: 'x/1' });
      const useless = await failing(broken.get(REF));
      assert.equal(useless.code, 'ERR_KUBE_CONFIG');
      assert.match(useless.message, /current-context/);
      const absent = connect({ kubeconfig: '/nonexistent/kubeconfig', userAgent: 'x/1' });
      assert.match(
        (await failing(absent.get(REF))).message,
        /^the kubeconfig \/nonexistent\/kubeconfig does not exist; set KUBECONFIG/,
      );
      const api = await startKubeApi();
      const other = connect({ kubeconfigText: api.kubeconfig(), context: 'prod', userAgent: 'x/1' });
      assert.match((await failing(other.get(REF))).message, /no context "prod"/);
      await api.stop();
    });

    it('merges several kubeconfigs: an earlier one wins and an absent one is skipped', async (test) => {
      const api = await startKubeApi();
      const dir = await mkdtemp(join(tmpdir(), 'meshcert-kubeconfig-'));
      test.after(async () => {
        await api.stop();
        await rm(dir, { recursive: true });
      });
      const [good, none, text] = [join(dir, 'good'), join(dir, 'none'), join(dir, 'text')];
      await api.writeKubeconfig(good);
      await writeFile(
        none,
        'apiVersion: v1\nkind: Config\ncontexts: [{name: other, context: {cluster: x, user: y}}]\n',
      );
      await writeFile(text, 'a: [');
      const through = (...files: string[]) => connect({ kubeconfig: files.join(':'), userAgent: 'x/1' }).get(REF);
      assert.equal(await through(join(dir, 'absent'), none, good), undefined);
      assert.match((await failing(through(text, good))).message, /text is not a kubeconfig/);
      assert.match((await failing(through(join(dir, 'a'), join(dir, 'b')))).message, /^none of .*a, .*b exists/);
    });

    it('stops reading an answer or an event that never ends', async (test) => {
      const kube = await connectTo(test, (request, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.write('{"items":["');
        const more = () => {
          while (response.write(Buffer.alloc(65_536, 'x'))) if (response.destroyed) return;
        };
        response.on('drain', more);
        request.socket.on('error', () => {});
        more();
      });
      const list = await failing(kube.list(RESOURCES.secrets, { namespace: 'emissary' }));
      assert.equal(list.code, 'ERR_KUBE_SERVER');
      assert.match(list.message, /^list secrets in namespace emissary: the answer is larger than 32 MiB/);
      const watch = await failing(
        kube.watch(RESOURCES.secrets, { resourceVersion: '1', timeoutSeconds: 240 })[Symbol.asyncIterator]().next(),
      );
      assert.match(watch.message, /^watch secrets in all namespaces: the answer is larger than 8 MiB/);
    });

    it('distinguishes a definition that is too old from a server that fails', async (test) => {
      const { kube } = await rig(test);
      const metadata = { name: 'istio', namespace: 'emissary' };
      const context = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext', metadata, spec: { novel: true } };
      const error = await failing(kube.apply(context, MANAGER));
      assert.equal(error.code, 'ERR_KUBE_INVALID');
      assert.match(error.message, /\.spec\.novel: field not declared in schema\. /);
      assert.match(error.message, /CustomResourceDefinition tlscontexts\.getambassador\.io .*: upgrade it\.$/);
    });
  });

/** A client of a server that answers whatever the test wants. */
async function connectTo(
  test: TestContext,
  listener: RequestListener,
  client: Partial<ConnectOptions> = {},
): Promise<Kube> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const cluster = { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true };
  const config = {
    clusters: [{ name: 'a', cluster }],
    users: [{ name: 'a', user: { token: 't' } }],
    contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
    'current-context': 'a',
  };
  const kube = connect({ kubeconfigText: JSON.stringify(config), userAgent: 'x/1', ...client });
  test.after(() => {
    kube.close();
    server.closeAllConnections();
    server.close();
  });
  return kube;
}
