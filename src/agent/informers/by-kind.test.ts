import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../async/clock.ts';
import { Trigger } from '../../async/trigger.ts';
import type { KubeObject } from '../../core/object.ts';
import { EMISSARY_RESOURCES } from '../../gateway/emissary/spec/resources.ts';
import { connect } from '../../kube/client.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SharedInformers } from './by-kind.ts';

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
    const discovery = new SharedInformers({
      kube,
      clock: systemClock,
      random: () => 0.5,
      log: { ...log, child: () => ({ ...log, child: () => assert.fail('no child of a child') }) },
    });
    const seen = new Trigger();
    const { signal } = new AbortController();
    using _broken = discovery.view(EMISSARY_RESOURCES.mappings, 'emissary', {
      failed: () => {},
      changed: () => {
        throw new TypeError('cannot read this');
      },
    });
    using view = discovery.view(EMISSARY_RESOURCES.mappings, 'emissary', {
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
});
