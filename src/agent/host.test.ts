import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { hostFor } from '../../test/support/host.ts';
import { type Share, sharing } from '../async/sharing.ts';
import { ALLOW_ANY, type Allowed, ANY } from '../config/allow.ts';
import type { Kube } from '../kube/api.ts';
import { connect } from '../kube/client.ts';
import { silentLog } from '../mesh/log.ts';

const TO_CA = { destinations: [{ address: 'ca.test:443', secure: true }] };

describe('the host of an adapter', () => {
  let api: KubeApi;
  let dir: string;
  const { signal } = new AbortController();

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'meshcert-host-'));
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'gateway', namespace: 'default' } };
    api = await startKubeApi({ tls: false, namespaces: ['default', 'edge'], objects: [account] });
  });
  after(async () => {
    await api.stop();
    await rm(dir, { recursive: true });
  });

  const host = (filesBelow: Allowed = ANY, share = sharing(), allow = ALLOW_ANY) =>
    hostFor(connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' }), {
      namespace: 'default',
      share,
      allow,
      filesBelow,
    });

  it('mints a token for a ServiceAccount, and names what is missing when it does not exist', async () => {
    const request = { ...TO_CA, audience: 'istio-ca', serviceAccount: { name: 'gateway', namespace: 'default' } };
    assert.match(await host().token(request, signal), /^eyJ/);
    const absent = { ...request, serviceAccount: { name: 'absent', namespace: 'default' } };
    await assert.rejects(host().token(absent, signal), { code: 'ERR_MESH_TOKEN', message: /default\/absent/ });
  });

  it('mints one token for all concurrent requests that are equal, and another for the next', async () => {
    let mints = 0;
    const kube = connect({
      kubeconfigText: api.kubeconfig(),
      userAgent: 'test',
      // Each time one for the mesh, and one that tells the audiences of the API server.
      answered: (verb) => {
        mints += verb === 'create' ? 1 : 0;
      },
    });
    const share = sharing();
    const one = () => hostFor(kube, { namespace: 'default', share });
    const ask = (audience: string, given: AbortSignal = signal) =>
      one().token({ ...TO_CA, audience, serviceAccount: { name: 'gateway', namespace: 'default' } }, given);
    const gone = new AbortController();
    const aborted = assert.rejects(ask('istio-ca', gone.signal), /not needed/);
    const tokens = await Promise.all([
      ...Array.from({ length: 20 }, () => ask('istio-ca')),
      ask('other'),
      gone.abort(new Error('not needed')),
    ]);
    await aborted;
    assert.deepEqual([new Set(tokens.slice(0, 21)).size, mints], [2, 4]);
    assert.ok(!tokens.includes(await ask('istio-ca')));
    assert.equal(mints, 6);
  });

  const gateway = { name: 'gateway', namespace: 'default' };
  const minted = () => api.requests.entries.filter(({ resource }) => resource === 'serviceaccounts/token').length;

  it('makes and reads no token that would travel in plaintext', async () => {
    const before = minted();
    const file = join(dir, 'plain');
    await writeFile(file, 'good');
    const exposed = { address: 'consul.test:8500', secure: false };
    const destinations = [...TO_CA.destinations, exposed];
    for (const from of [{ serviceAccount: gateway }, { file }]) {
      await assert.rejects(host().token({ audience: 'consul', destinations, ...from }, signal), {
        code: 'ERR_TOKEN_EXPOSED',
        message: /consul\.test:8500 in plaintext; turn on TLS/,
      });
    }
    assert.equal(minted(), before);
  });

  it('hands out no token that opens the Kubernetes API, unless its audience is allowed by name', async () => {
    const audience = 'https://kubernetes.default.svc.cluster.local';
    const request = { ...TO_CA, audience, serviceAccount: gateway };
    await assert.rejects(host().token(request, signal), {
      code: 'ERR_NOT_ALLOWED',
      message: /opens the Kubernetes API .* --allow-audience=https:\/\/kubernetes\.default\.svc\.cluster\.local/,
    });
    const others = host(ANY, undefined, { ...ALLOW_ANY, audiences: ['istio-ca'] });
    await assert.rejects(others.token(request, signal), { code: 'ERR_NOT_ALLOWED' });
    assert.match(await host(ANY, undefined, { ...ALLOW_ANY, audiences: [audience] }).token(request, signal), /^eyJ/);
  });

  it('judges a token from a file once for all who need it at the same time', async () => {
    const token = api.tokenFor({ name: 'gateway', namespace: 'default' }, 600, 'consul');
    const file = join(dir, 'many');
    await writeFile(file, token);
    const share = sharing();
    const asked = () => api.requests.count({ verb: 'get', resource: '' });
    const before = asked();
    const tokens = await Promise.all(
      Array.from({ length: 10 }, () => host([dir], share).token({ ...TO_CA, audience: 'consul', file }, signal)),
    );
    assert.ok(tokens.every((one) => one === token));
    assert.equal(asked(), before + 1);
    await host([dir], share).token({ ...TO_CA, audience: 'consul', file }, signal);
    assert.equal(asked(), before + 2);
  });

  it('sends no token from a file that opens the Kubernetes API where a resource names the file, unless that is allowed', async () => {
    const audience = 'https://kubernetes.default.svc.cluster.local';
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    const own = await kube.token(gateway, audience, 600);
    const file = join(dir, 'own');
    await writeFile(file, own.token);
    const request = { ...TO_CA, audience: 'consul', file };
    await assert.rejects(host([dir]).token(request, signal), {
      code: 'ERR_NOT_ALLOWED',
      message: /own opens the Kubernetes API .* --allow-audience=https:\/\/kubernetes\.default\.svc\.cluster\.local/,
    });
    assert.equal(
      await host([dir], undefined, { ...ALLOW_ANY, audiences: [audience] }).token(request, signal),
      own.token,
    );
    assert.equal(await host().token(request, signal), own.token);
    const other = await kube.token(gateway, 'consul', 600);
    await writeFile(file, other.token);
    assert.equal(await host([dir]).token(request, signal), other.token);
    await writeFile(file, 'no-jwt');
    await assert.rejects(host([dir]).token(request, signal), {
      code: 'ERR_MESH_TOKEN',
      message: /could not check whether .*: it names no audience; use a token that names its audience/,
    });
    assert.equal(await host().token(request, signal), 'no-jwt');
    kube.close();
  });

  it('asks the API server about each token, and sends none that it says nothing certain about', async () => {
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    const ask = () =>
      hostFor(kube, { namespace: 'default' }).token(
        { ...TO_CA, audience: 'istio-ca', serviceAccount: gateway },
        signal,
      );
    const asked = () => api.requests.entries.filter(({ path, status }) => path === '/version' && status === 401).length;
    const before = asked();
    for (let turn = 0; turn < 3; turn++) await ask();
    assert.equal(asked() - before, 3);
    const refused = { code: 'ERR_MESH_TOKEN', message: /could not check whether .* --allow-audience=istio-ca/ };
    const never = () => Promise.reject(new Error('no answer'));
    for (const broken of [{ accepts: never }, { apiAudiences: never }, { apiAudiences: () => Promise.resolve([]) }]) {
      const { get, token, accepts, apiAudiences } = kube;
      const bound = { get, token, accepts, apiAudiences };
      for (const [name, call] of Object.entries(bound)) Object.assign(bound, { [name]: call.bind(kube) });
      const failing = hostFor({ ...kube, ...bound, ...broken } as Kube, { namespace: 'default' });
      await assert.rejects(failing.token({ ...TO_CA, audience: 'istio-ca', serviceAccount: gateway }, signal), refused);
    }
    kube.close();
  });

  describe('whose ServiceAccount is being deleted', () => {
    const audience = 'https://kubernetes.default.svc.cluster.local';
    const account = (name: string) => ({ name, namespace: 'default' });
    const clock = new FakeClock();
    let deleting: KubeApi;
    let kube: Kube;

    before(async () => {
      deleting = await startKubeApi({ tls: false, clock });
      kube = connect({ kubeconfigText: deleting.kubeconfig(), userAgent: 'test' });
      for (const [name, finalizers] of [['leaving', ['example.com/hold']] as const, ['gateway', []] as const])
        deleting.put({
          apiVersion: 'v1',
          kind: 'ServiceAccount',
          metadata: { name, namespace: 'default', finalizers },
        });
      await kube.delete({ apiVersion: 'v1', kind: 'ServiceAccount', namespace: 'default', name: 'leaving' }, {});
      await clock.advance(61_000);
    });
    after(async () => {
      kube.close();
      await deleting.stop();
    });

    const ask = (name: string, to: string) =>
      hostFor(kube, { namespace: 'default' }).token({ ...TO_CA, audience: to, serviceAccount: account(name) }, signal);

    it('mints no token for it', async () => {
      await assert.rejects(ask('leaving', 'istio-ca'), {
        code: 'ERR_MESH_TOKEN',
        message: /^ServiceAccount default\/leaving is being deleted/,
      });
      assert.ok(!deleting.requests.entries.some(({ resource }) => resource === 'serviceaccounts/token'));
    });

    it('hands out no API token, its own or that of another account, although the API server refuses its own', async () => {
      const end = deleting.fault({
        match: ({ verb, plural }) => verb === 'get' && plural === 'serviceaccounts',
        status: 403,
      });
      for (const name of ['leaving', 'gateway'])
        await assert.rejects(ask(name, audience), { code: 'ERR_NOT_ALLOWED', message: /opens the Kubernetes API/ });
      assert.match(await ask('gateway', 'istio-ca'), /^eyJ/);
      end();
    });

    it('takes none from a file either, whatever its own credentials are', async () => {
      const file = join(dir, 'leaving');
      const { token } = await kube.token(account('leaving'), audience, 600);
      await writeFile(file, token);
      assert.equal(await kube.accepts(token), false);
      const asAccount = deleting.kubeconfig({ token: deleting.tokenFor(account('gateway')) });
      for (const kubeconfigText of [deleting.kubeconfig(), asAccount]) {
        const own = connect({ kubeconfigText, userAgent: 'test' });
        const refused = hostFor(own, { namespace: 'default', filesBelow: [dir] }).token(
          { ...TO_CA, audience: 'consul', file },
          signal,
        );
        await assert.rejects(refused, { code: 'ERR_NOT_ALLOWED', message: /leaving opens the Kubernetes API/ });
        own.close();
      }
    });
  });

  it('makes tokens only for the allowed accounts, audiences and addresses', async () => {
    const request = { ...TO_CA, audience: 'istio-ca', serviceAccount: gateway };
    const allow = { serviceAccounts: ['default/gateway'], audiences: ['istio-ca'], addresses: ['ca.test:443'] };
    const before = minted();
    for (const [kind, flag] of [
      ['serviceAccounts', '--allow-service-account=default/gateway'],
      ['audiences', '--allow-audience=istio-ca'],
      ['addresses', '--allow-address=ca.test:443'],
    ] as const) {
      const refused = host(ANY, undefined, { ...allow, [kind]: ['other/other'] }).token(request, signal);
      await assert.rejects(refused, { code: 'ERR_NOT_ALLOWED', message: new RegExp(flag) });
    }
    const file = join(dir, 'allowed');
    await writeFile(file, 'good');
    const elsewhere = host([dir], undefined, { ...allow, addresses: [] });
    await assert.rejects(elsewhere.token({ ...TO_CA, audience: 'istio-ca', file }, signal), {
      code: 'ERR_NOT_ALLOWED',
    });
    assert.equal(minted(), before);
    assert.match(await host(ANY, undefined, allow).token(request, signal), /^eyJ/);
  });

  it('mints for a ServiceAccount of another namespace only with its consent', async () => {
    const other = { name: 'gateway', namespace: 'edge' };
    const put = (annotations: Readonly<Record<string, string>>) =>
      api.put({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { ...other, annotations } });
    const request = { ...TO_CA, audience: 'identity.l5d.io', serviceAccount: other };
    const before = minted();
    await assert.rejects(host().token(request, signal), { code: 'ERR_NO_CONSENT' });
    put({ 'meshcert.dev/allow-from': 'shop' });
    await assert.rejects(host().token(request, signal), {
      code: 'ERR_NO_CONSENT',
      message: /kubectl annotate serviceaccount gateway -n edge meshcert\.dev\/allow-from=default/,
    });
    assert.equal(minted(), before);
    put({ 'meshcert.dev/allow-from': 'shop,default' });
    assert.match(await host().token(request, signal), /^eyJ/);
  });

  it('reads a token file again at each call', async () => {
    const file = join(dir, 'token');
    for (const text of ['first', 'second']) {
      await writeFile(file, `${text}\n`);
      assert.equal(await host().token({ ...TO_CA, audience: 'a', file }, signal), text);
    }
    await writeFile(file, '');
    await assert.rejects(host().token({ ...TO_CA, audience: 'a', file }, signal), {
      code: 'ERR_MESH_TOKEN',
      message: /is empty/,
    });
  });

  it('reads files for a resource only below the directories that the operator named', async () => {
    const file = join(dir, 'token');
    const token = api.tokenFor(gateway, 600, 'a');
    await writeFile(file, token);
    assert.equal(await host([dir]).token({ ...TO_CA, audience: 'a', file }, signal), token);
    const outside = ['/var/run/secrets/kubernetes.io/serviceaccount/token', join(dir, '..', 'token'), `${dir}x/token`];
    for (const path of outside) {
      const refused = { code: 'ERR_MESH_CONFIG', message: /--files-below/ };
      await assert.rejects(host([dir]).token({ ...TO_CA, audience: 'a', file: path }, signal), refused);
      assert.throws(() => host([dir]).file(path, signal), refused);
    }
  });

  it('follows a symlink as mounted volumes have it, and none that leads out of those directories', async () => {
    const [mount, elsewhere] = [join(dir, 'mount'), join(dir, 'elsewhere')];
    await mkdir(join(mount, '..data'), { recursive: true });
    await mkdir(elsewhere);
    const token = api.tokenFor(gateway, 600, 'a');
    for (const directory of [join(mount, '..data'), elsewhere]) await writeFile(join(directory, 'token'), token);
    await symlink(join('..data', 'token'), join(mount, 'token'));
    await symlink(join('..', 'elsewhere', 'token'), join(mount, 'stray'));
    const below = [join(dir, 'absent'), mount];
    const read = (name: string) => host(below).token({ ...TO_CA, audience: 'a', file: join(mount, name) }, signal);
    const text = async (name: string) => {
      for await (const content of host(below).file(join(mount, name), signal)) return content;
    };
    assert.equal(await read('token'), token);
    assert.equal(await text('token'), token);
    await assert.rejects(read('stray'), { code: 'ERR_MESH_TOKEN', message: /is a symlink to .*elsewhere.*not below/ });
    assert.equal(await text('stray'), undefined);
  });

  it('warns of a file that every user of the machine may change, once, and of no other', async () => {
    const warnings: string[] = [];
    const log = { ...silentLog, warn: (_: object, message: string) => warnings.push(message) };
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    const paths = ['open.pem', 'readable.pem'].map((name) => join(dir, name));
    const [open = ''] = paths;
    for (const path of paths) await writeFile(path, 'first');
    await chmod(open, 0o666);
    let readings = 0;
    for await (const _ of hostFor(kube, { log }).files(paths, signal)) {
      readings += 1;
      if (readings === 2) break;
      await writeFile(open, 'second');
    }
    assert.equal(warnings.length, 1, warnings.join('\n'));
    assert.match(warnings[0] ?? '', /every user of this machine may change the file .*\/open\.pem/);
  });

  it('reads a ConfigMap once for all hosts that share it', async () => {
    const share = sharing();
    const ref = { name: 'roots', namespace: 'default' };
    const put = (data: Readonly<Record<string, string>>) =>
      api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata: ref, data });
    put({ pem: 'a' });
    const abort = new AbortController();
    const [first, second, alone] = [share, share, undefined].map((each) =>
      host(ANY, each).configMap(ref, abort.signal)[Symbol.asyncIterator](),
    );
    const next = async (values: typeof first) => (await values?.next())?.value;
    const known = await next(first);
    assert.deepEqual(known, { pem: 'a' });
    assert.equal(await next(second), known);
    assert.deepEqual(await next(alone), known);
    put({ pem: 'b' });
    assert.deepEqual(await next(first), { pem: 'b' });
    assert.deepEqual(await next(second), { pem: 'b' });
    abort.abort();
    assert.equal((await first?.next())?.done, true);
  });

  it('says why a ConfigMap may be out of date until it is read again, or followed again', async () => {
    const ref = { name: 'stale', namespace: 'default' };
    api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata: ref, data: {} });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    const news = new EventEmitter();
    let said: string | undefined;
    const reportStale = (source: string, error: Error | undefined) => {
      said = `${source}: ${(error as { code?: string } | undefined)?.code ?? 'up to date'}`;
      news.emit('said');
    };
    const until = async (state: string) => {
      while (said !== `ConfigMap default/stale: ${state}`) await once(news, 'said');
    };
    const own = hostFor(kube, { namespace: 'default', reportStale });
    const following = async () => {
      const abort = new AbortController();
      await own.configMap(ref, abort.signal)[Symbol.asyncIterator]().next();
      return abort;
    };
    const first = await following();
    await api.outage(true);
    await until('ERR_KUBE_UNREACHABLE');
    await api.outage(false);
    await until('up to date');
    first.abort();
    said = undefined;
    const second = await following();
    await until('up to date');
    second.abort();
    kube.close();
  });

  describe('that reads a ClusterTrustBundle', () => {
    const name = 'istio.io:istiod-ca:root-cert';
    const pems = [SandboxCa.root(), SandboxCa.root()].map(({ certificate }) => certificate.pem);
    const put = (version: 'v1' | 'v1beta1', trustBundle = '') =>
      api.put({
        apiVersion: `certificates.k8s.io/${version}`,
        kind: 'ClusterTrustBundle',
        metadata: { name },
        spec: { signerName: 'istio.io/istiod-ca', trustBundle },
      });
    const read = (share?: Share) => {
      const abort = new AbortController();
      const values = host(ANY, share).clusterTrustBundle(name, abort.signal)[Symbol.asyncIterator]();
      return { next: async () => (await values.next()).value, end: () => abort.abort() };
    };
    const unserved = { code: 'ERR_MESH_UNSUPPORTED', message: /does not serve ClusterTrustBundles.*--feature-gates/ };

    it('says that the API server serves none, and reads it once it is served', async () => {
      api.serveTrustBundles();
      await assert.rejects(read().next(), unserved);
      api.serveTrustBundles('v1beta1');
      const values = read();
      assert.equal(await values.next(), undefined);
      put('v1beta1', pems[0]);
      assert.equal(await values.next(), pems[0]);
      values.end();
    });

    it('gives each change to all who share it', async () => {
      const share = sharing();
      const both = [read(share), read(share)];
      for (const one of both) assert.equal(await one.next(), pems[0]);
      put('v1beta1', pems[1]);
      for (const one of both) assert.equal(await one.next(), pems[1]);
      for (const one of both) one.end();
    });

    it('goes to the version that is served when its own no longer is', async () => {
      const values = read();
      assert.equal(await values.next(), pems[1]);
      api.serveTrustBundles('v1');
      put('v1', pems[0]);
      const next = assert.rejects(values.next(), unserved);
      api.dropWatches('cut');
      await next;
      const again = read();
      assert.equal(await again.next(), pems[0]);
      again.end();
    });
  });

  it('shares no file with a host that may not read it', async () => {
    const share = sharing();
    const file = join(dir, 'shared');
    await writeFile(file, 'good');
    const abort = new AbortController();
    const values = [host([dir], share), host([dir], share)].map((each) => each.file(file, abort.signal));
    for (const each of values) assert.equal((await each[Symbol.asyncIterator]().next()).value, 'good');
    assert.throws(() => host([join(dir, 'elsewhere')], share).file(file, abort.signal), { code: 'ERR_MESH_CONFIG' });
    abort.abort();
  });
});
