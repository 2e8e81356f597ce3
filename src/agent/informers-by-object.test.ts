import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { drive } from '../../test/support/drive.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { EMISSARY_RESOURCES } from '../gateway/emissary/config.ts';
import { connect } from '../kube/client.ts';
import { silentLog } from '../mesh/log.ts';
import { MANAGED_BY_LABEL, type ObjectRef } from '../objects/objects.ts';
import { ObjectInformer } from './informers.ts';

const NO_OTHERS = { namespaces: [], kinds: [], seen: () => {} };

const secret = (name: string): ObjectRef => ({ apiVersion: 'v1', kind: 'Secret', namespace: 'emissary', name });

describe('object informers', () => {
  for (const by of ['names', 'labels'] as const) {
    it(`by ${by} continue when a reconciler observes more objects than before`, async () => {
      const clock = new FakeClock();
      const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary'] });
      const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', clock });
      const put = (name: string, text: string) =>
        api.put({
          apiVersion: 'v1',
          kind: 'Secret',
          metadata: { name, namespace: 'emissary', labels: { [MANAGED_BY_LABEL]: 'meshcert' } },
          stringData: { text },
        });
      const observer = new ObjectInformer({ kube, clock, random: () => 0.5, log: silentLog, by, ...NO_OTHERS });
      let changes = 0;
      const changed = () => {
        changes++;
      };
      try {
        put('a', 'first');
        const first = observer.observe([secret('a')], { changed });
        await drive(clock, () => first.synced);
        const second = observer.observe([secret('a'), secret('b')], { changed });
        first[Symbol.dispose]();
        await drive(clock, () => second.synced);
        const before = changes;
        put('a', 'second');
        await drive(clock, () => changes > before, { what: 'the change' });
        second[Symbol.dispose]();
        await drive(clock, () => api.watches === 0, { what: 'the end of all watches' });
      } finally {
        kube.close();
        await api.stop();
      }
    });
  }

  it('by names open one watch for each Secret, and one for all TLSContexts of a namespace', async () => {
    const clock = new FakeClock();
    const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary'] });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', clock });
    const kinds = Object.values(EMISSARY_RESOURCES);
    const observer = new ObjectInformer({
      ...{ kube, clock, random: () => 0.5, log: silentLog, by: 'names', ...NO_OTHERS },
      kinds,
    });
    const { apiVersion, kind } = EMISSARY_RESOURCES.tlsContexts;
    const context = (name: string) => ({ apiVersion, kind, namespace: 'emissary', name });
    const changes = ['a', 'b', 'c'].map(() => 0);
    const views = ['a', 'b', 'c'].map((name, index) =>
      observer.observe([secret(name), context(name)], {
        changed: () => {
          changes[index] = (changes[index] ?? 0) + 1;
        },
      }),
    );
    try {
      await drive(clock, () => views.every(({ synced }) => synced));
      assert.equal(api.requests.count({ verb: 'watch', resource: 'secrets' }), 3);
      assert.equal(api.requests.count({ verb: 'watch', resource: 'tlscontexts' }), 1);
      const before = [...changes];
      const metadata = { name: 'b', namespace: 'emissary' };
      api.put({ apiVersion, kind, metadata, spec: { secret: 'b' } });
      await drive(clock, () => changes[1] !== before[1], { what: 'the change' });
      assert.deepEqual([changes[0], changes[2]], [before[0], before[2]]);
    } finally {
      for (const view of views) view[Symbol.dispose]();
      kube.close();
      await api.stop();
    }
  });

  for (const meddles of [false, true]) {
    it(`tell no write of our own${meddles ? ', but that of another client in between' : ''}`, async () => {
      const clock = new FakeClock();
      const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary'] });
      const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', clock });
      const observer = new ObjectInformer({
        kube,
        clock,
        random: () => 0.5,
        log: silentLog,
        by: 'names',
        ...NO_OTHERS,
      });
      let changes = 0;
      using view = observer.observe([secret('a'), secret('b')], { changed: () => changes++ });
      const isSeen = (name: string, text: string) => () =>
        (view.get(secret(name))?.data as { text?: string } | undefined)?.text === text;
      const object = (name: string, text: string) => {
        const metadata = { name, namespace: 'emissary', labels: { [MANAGED_BY_LABEL]: 'meshcert' } };
        return { apiVersion: 'v1', kind: 'Secret', metadata, type: 'Opaque', data: { text } };
      };
      try {
        await drive(clock, () => view.synced);
        changes = 0;
        {
          using _writing = view.writing();
          const created = await kube.create(object('a', 'b3Vycw=='), { fieldManager: 'meshcert' });
          await drive(clock, isSeen('a', 'b3Vycw=='), { what: 'our write' });
          if (meddles) {
            api.put(object('b', 'dGhlaXJz'));
            await drive(clock, isSeen('b', 'dGhlaXJz'), { what: 'the write of another client' });
          }
          view.wrote(created);
          assert.equal(changes, 0);
        }
        assert.equal(changes, meddles ? 1 : 0);
        assert.ok(view.readBack(secret('a')));
        api.put(object('a', 'dGhlaXJz'));
        await drive(clock, () => changes === (meddles ? 2 : 1), { what: 'a later change' });
      } finally {
        kube.close();
        await api.stop();
      }
    });
  }

  it('tell once of a server that is away before their first list, and not at all after it', async () => {
    const clock = new FakeClock();
    const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary'] });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', clock });
    const observer = new ObjectInformer({ kube, clock, random: () => 0.5, log: silentLog, by: 'names', ...NO_OTHERS });
    let changes = 0;
    await api.outage(true);
    using view = observer.observe([secret('a')], { changed: () => changes++ });
    try {
      await drive(clock, () => changes > 0 && view.problem !== undefined, { what: 'the failure of the list' });
      const first = view.problem;
      await drive(clock, () => view.problem !== first, { what: 'the failure of another attempt' });
      assert.equal(changes, 1);
      await api.outage(false);
      await drive(clock, () => view.synced, { what: 'the list' });
      changes = 0;
      await api.outage(true);
      await drive(clock, () => observer.problem !== undefined, { what: 'the failure of the watch' });
      const failed = observer.problem;
      await drive(clock, () => observer.problem !== failed, { what: 'the failure of another attempt' });
      assert.equal(changes, 0);
    } finally {
      kube.close();
      await api.stop();
    }
  });

  for (const isSeen of [true, false]) {
    it(`tell that what we wrote was deleted ${isSeen ? 'before the response came' : 'while nothing was watched'}`, async () => {
      const clock = new FakeClock();
      const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary'] });
      const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', clock });
      const observer = new ObjectInformer({
        kube,
        clock,
        random: () => 0.5,
        log: silentLog,
        by: 'names',
        ...NO_OTHERS,
      });
      let changes = 0;
      using view = observer.observe([secret('a')], { changed: () => changes++ });
      const exists = () => view.get(secret('a')) !== undefined;
      const metadata = { name: 'a', namespace: 'emissary', labels: { [MANAGED_BY_LABEL]: 'meshcert' } };
      const object = { apiVersion: 'v1', kind: 'Secret', metadata, type: 'Opaque', data: {} };
      try {
        await drive(clock, () => view.synced);
        changes = 0;
        if (!isSeen) {
          api.fault({ match: ({ verb }) => verb === 'watch', status: 503 });
          observer.resync();
          await drive(clock, () => api.watches === 0, { what: 'the end of the watch' });
        }
        {
          using _writing = view.writing();
          const created = await kube.create(object, { fieldManager: 'meshcert' });
          if (isSeen) await drive(clock, exists, { what: 'our write' });
          await kube.delete(secret('a'), {});
          if (isSeen) await drive(clock, () => !exists(), { what: 'the deletion' });
          view.wrote(created);
        }
        api.clearFaults();
        await drive(clock, () => !exists() && changes === 1, { what: 'the news of the deletion' });
        assert.ok(view.readBack(secret('a')));
      } finally {
        kube.close();
        await api.stop();
      }
    });
  }
});
