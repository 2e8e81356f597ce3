import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { drive } from '../../test/support/drive.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { systemClock } from '../async/clock.ts';
import { Trigger } from '../async/trigger.ts';
import { EMISSARY_RESOURCES } from '../gateway/emissary/config.ts';
import { connect } from '../kube/client.ts';
import { silentLog } from '../mesh/log.ts';
import { type KubeObject, OWNER_LABEL, refOf } from '../objects/objects.ts';
import { Informer, type View } from './informers.ts';

const MAPPINGS = { resource: EMISSARY_RESOURCES.mappings, namespace: 'emissary' };

const mapping = (name: string): KubeObject => ({
  apiVersion: 'getambassador.io/v3alpha1',
  kind: 'Mapping',
  metadata: { name, namespace: 'emissary' },
  spec: { prefix: '/', service: 'web.shop' },
});

describe('a shared watch', () => {
  it('continues when a watcher throws', async () => {
    const api = await startKubeApi({ tls: false, namespaces: ['emissary'] });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    const logged: string[] = [];
    const write = () => {};
    const log = { debug: write, info: write, warn: write, error: (_: object, text: string) => logged.push(text) };
    const discovery = new Informer({
      kube,
      clock: systemClock,
      random: () => 0.5,
      log: { ...log, child: () => ({ ...log, child: () => assert.fail('no child of a child') }) },
    });
    const seen = new Trigger();
    const { signal } = new AbortController();
    using _broken = discovery.view(MAPPINGS, {
      failed: () => {},
      changed: () => {
        throw new TypeError('cannot read this');
      },
    });
    using view = discovery.view(MAPPINGS, {
      failed: () => {},
      changed: () => seen.fire(),
    });
    for (const name of ['one', 'two']) {
      api.put(mapping(name));
      while (!view.items().some(({ metadata }) => metadata.name === name)) await seen.wait(signal);
    }
    assert.ok(logged.length >= 2);
    kube.close();
    await api.stop();
  });

  for (const owner of [undefined, 'emissary.istio']) {
    it(`continues for a watcher that closes one of its two views${owner === undefined ? '' : ' of one owner'}`, async () => {
      const api = await startKubeApi({ tls: false, namespaces: ['emissary'] });
      const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
      const discovery = new Informer({ kube, clock: systemClock, random: () => 0.5, log: silentLog });
      const seen = new Trigger();
      const watcher = { failed: (error: Error) => assert.fail(error), changed: () => seen.fire() };
      const viewOf = () => discovery.view(MAPPINGS, watcher, { owner });
      const [first, second] = [viewOf(), viewOf()];
      const limit = AbortSignal.timeout(10_000);
      while (!second.synced) await seen.wait(limit);
      first[Symbol.dispose]();
      const { metadata, ...rest } = mapping('later');
      api.put({ ...rest, metadata: { ...metadata, labels: { [OWNER_LABEL]: 'emissary.istio' } } });
      while (second.items().length === 0) await seen.wait(limit);
      second[Symbol.dispose]();
      kube.close();
      await api.stop();
    });
  }

  it('tells a view with an owner only of the objects that have or had its label', async () => {
    const api = await startKubeApi({ tls: false, namespaces: ['emissary'] });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    const discovery = new Informer({ kube, clock: systemClock, random: () => 0.5, log: silentLog });
    const changes = new Trigger();
    const { signal } = new AbortController();
    const reached: string[] = [];
    const viewOf = (who: string, owner?: string): View =>
      discovery.view(
        MAPPINGS,
        {
          failed: (error) => assert.fail(error),
          changed: () => {
            reached.push(who);
            changes.fire();
          },
        },
        { owner },
      );
    using all = viewOf('everyone');
    using _bystander = viewOf('bystander', 'emissary.bystander');
    using a = viewOf('a', 'emissary.a');
    using b = viewOf('b', 'emissary.b');
    const after = async (change: () => unknown): Promise<readonly string[]> => {
      reached.length = 0;
      await change();
      while (!reached.includes('everyone')) await changes.wait(signal);
      return [...reached];
    };
    const owned = (owner: string | undefined): KubeObject => ({
      ...mapping('one'),
      metadata: { ...mapping('one').metadata, ...(owner ? { labels: { [OWNER_LABEL]: owner } } : {}) },
    });
    const names = (view: View) => view.items().map(({ metadata }) => metadata.name);

    assert.deepEqual(await after(() => {}), ['everyone', 'bystander', 'a', 'b']);
    assert.ok([all, a, b].every(({ synced }) => synced));
    assert.deepEqual(await after(() => api.put(owned('emissary.a'))), ['everyone', 'a']);
    assert.deepEqual([names(all), names(a), names(b)], [['one'], ['one'], []]);
    assert.deepEqual(await after(() => api.put(owned('emissary.b'))), ['everyone', 'a', 'b']);
    assert.deepEqual([names(all), names(a), names(b)], [['one'], [], ['one']]);
    assert.deepEqual(await after(() => api.put(owned(undefined))), ['everyone', 'b']);
    assert.deepEqual(await after(() => api.put(owned('emissary.a'))), ['everyone', 'a']);
    assert.deepEqual(await after(() => kube.delete(refOf(mapping('one')), {}, signal)), ['everyone', 'a']);
    assert.deepEqual([names(all), names(a), names(b)], [[], [], []]);
    kube.close();
    await api.stop();
  });

  it('tells each watcher once of a failure that lasts, and again of another one and after it has ended', async () => {
    const clock = new FakeClock();
    const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary'] });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', clock });
    let attempts = 0;
    const failed = () => attempts++;
    const log = { ...silentLog, warn: failed, debug: failed };
    const discovery = new Informer({ kube, clock, random: () => 0.5, log });
    const viewOf = (words: string[]) =>
      discovery.view(MAPPINGS, {
        changed: () => words.push('changed'),
        failed: ({ message }) => words.push(message),
        recovered: () => words.push('recovered'),
      });
    const [early, late]: [string[], string[]] = [[], []];
    const failures = (words: string[]) => words.filter((word) => !['changed', 'recovered'].includes(word));
    using view = viewOf(early);
    const outage = async (least: number) => {
      attempts = 0;
      await api.outage(true);
      await drive(clock, () => attempts >= least, { what: `${least} attempts` });
    };
    try {
      await drive(clock, () => view.synced, { what: 'the list' });
      await outage(8);
      const [first, ...others] = failures(early);
      assert.ok(first);
      assert.ok(others.length <= 1, `an answer may have been cut first: ${others}`);
      using _late = viewOf(late);
      const last = failures(early).at(-1);
      await drive(clock, () => late.length > 0, { what: 'the word to who came later' });
      assert.deepEqual(late, [last]);
      await api.outage(false);
      await drive(clock, () => view.problem === undefined, { what: 'the end of the failure' });
      assert.deepEqual([early.at(-1), late.at(-1)], ['recovered', 'recovered']);
      await outage(4);
      assert.equal(failures(late).at(-1), last);
      assert.ok(late.indexOf('recovered') < late.lastIndexOf(last ?? ''));
    } finally {
      kube.close();
      await api.stop();
    }
  });
});
