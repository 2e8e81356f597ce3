import { describe, it } from 'node:test';
import { drive } from '../../../test/support/drive.ts';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import { MANAGED_BY_LABEL, type ObjectRef } from '../../core/object.ts';
import { connect } from '../../kube/client.ts';
import { silentLog } from '../../mesh/log.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { ObjectInformers } from './by-object.ts';

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
      const observer = new ObjectInformers({ kube, clock, random: () => 0.5, log: silentLog, by });
      let changes = 0;
      const changed = () => {
        changes++;
      };
      try {
        put('a', 'first');
        const first = observer.observe([secret('a')], changed);
        await drive(clock, () => first.synced);
        const second = observer.observe([secret('a'), secret('b')], changed);
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
});
