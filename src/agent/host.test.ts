import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connect } from '../kube/client.ts';
import { systemClock } from '../mesh/clock.ts';
import { silentLog } from '../mesh/log.ts';
import { type Share, sharing } from '../mesh/sharing.ts';
import { type KubeApi, startKubeApi } from '../sandbox/kube/kube-api.ts';
import { createHost } from './host.ts';

describe('the host of an adapter', () => {
  let api: KubeApi;
  let dir: string;
  const { signal } = new AbortController();

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'meshcert-host-'));
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'gateway', namespace: 'default' } };
    api = await startKubeApi({ tls: false, objects: [account] });
  });
  after(async () => {
    await api.stop();
    await rm(dir, { recursive: true });
  });

  const surroundings = {
    clock: systemClock,
    random: Math.random,
    log: silentLog,
    namespace: 'default',
    report: () => {},
  };
  const host = (filesBelow?: readonly string[], share?: Share) =>
    createHost({
      ...surroundings,
      share,
      kube: connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' }),
      filesBelow,
    });

  it('mints a token for a ServiceAccount, and names what is missing when it does not exist', async () => {
    const request = { audience: 'istio-ca', serviceAccount: { name: 'gateway', namespace: 'default' } };
    assert.match(await host().token(request, signal), /^eyJ/);
    const absent = { ...request, serviceAccount: { name: 'absent', namespace: 'default' } };
    await assert.rejects(host().token(absent, signal), { code: 'ERR_MESH_TOKEN', message: /default\/absent/ });
  });

  it('mints one token for all who ask for the same at a time, and another for the next', async () => {
    let mints = 0;
    const kube = connect({
      kubeconfigText: api.kubeconfig(),
      userAgent: 'test',
      answered: (verb) => {
        mints += verb === 'create' ? 1 : 0;
      },
    });
    const share = sharing();
    const one = () => createHost({ share, kube, ...surroundings });
    const ask = (audience: string, given: AbortSignal = signal) =>
      one().token({ audience, serviceAccount: { name: 'gateway', namespace: 'default' } }, given);
    const gone = new AbortController();
    const aborted = assert.rejects(ask('istio-ca', gone.signal), /not needed/);
    const tokens = await Promise.all([
      ...Array.from({ length: 20 }, () => ask('istio-ca')),
      ask('other'),
      gone.abort(new Error('not needed')),
    ]);
    await aborted;
    assert.deepEqual([new Set(tokens.slice(0, 21)).size, mints], [2, 2]);
    assert.ok(!tokens.includes(await ask('istio-ca')));
    assert.equal(mints, 3);
  });

  it('reads a token file anew at each call', async () => {
    const file = join(dir, 'token');
    for (const text of ['first', 'second']) {
      await writeFile(file, `${text}\n`);
      assert.equal(await host().token({ audience: 'a', file }, signal), text);
    }
    await writeFile(file, '');
    await assert.rejects(host().token({ audience: 'a', file }, signal), {
      code: 'ERR_MESH_TOKEN',
      message: /is empty/,
    });
  });

  it('reads no file for a resource but below the directories that the operator named', async () => {
    const file = join(dir, 'token');
    await writeFile(file, 'good');
    assert.equal(await host([dir]).token({ audience: 'a', file }, signal), 'good');
    const outside = ['/var/run/secrets/kubernetes.io/serviceaccount/token', join(dir, '..', 'token'), `${dir}x/token`];
    for (const path of outside) {
      const refused = { code: 'ERR_MESH_CONFIG', message: /--files-below/ };
      await assert.rejects(host([dir]).token({ audience: 'a', file: path }, signal), refused);
      assert.throws(() => host([dir]).file(path, signal), refused);
    }
  });

  it('reads a ConfigMap once for all who share', async () => {
    const share = sharing();
    const ref = { name: 'roots', namespace: 'default' };
    const put = (data: Readonly<Record<string, string>>) =>
      api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata: ref, data });
    put({ pem: 'a' });
    const abort = new AbortController();
    const [first, second, alone] = [share, share, undefined].map((each) =>
      host(undefined, each).configMap(ref, abort.signal)[Symbol.asyncIterator](),
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

  it('shares no file with who may not read it', async () => {
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
