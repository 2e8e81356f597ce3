import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { systemClock } from '../../../src/async/clock.ts';
import type { WatchEvent } from '../../../src/kube/api.ts';
import { type Reflector, reflect } from '../../../src/kube/reflector.ts';
import { onlyNamed, RESOURCES } from '../../../src/kube/resources.ts';
import { silentLog } from '../../../src/mesh/log.ts';
import { keyOf, refOf } from '../../../src/objects/objects.ts';
import { type Bench, base64, MANAGER, secret, stopAfter } from './target.ts';

export function watchContract(bench: Bench): void {
  describe('watches', () => {
    const ref = (namespace: string, name: string) => ({ apiVersion: 'v1', kind: 'Secret', namespace, name });
    const summary = ({ type, object }: WatchEvent) => `${type} ${object.metadata.name}`;

    async function first(events: AsyncIterable<WatchEvent>, count: number): Promise<WatchEvent[]> {
      const seen: WatchEvent[] = [];
      for await (const event of events) if (event.type !== 'BOOKMARK' && seen.push(event) === count) break;
      return seen;
    }

    it('report what happened after the version of a list, once and in order', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(secret(namespace, 'before', {}), MANAGER);
      const { resourceVersion } = await bench.kube.list(RESOURCES.secrets, { namespace });
      await bench.kube.create(secret(namespace, 'a', {}), MANAGER);
      await bench.kube.merge(ref(namespace, 'a'), { data: { x: base64('1') } }, MANAGER);
      const events = first(bench.kube.watch(RESOURCES.secrets, { namespace, resourceVersion }), 4);
      await bench.kube.delete(ref(namespace, 'a'), {});
      await bench.kube.delete(ref(namespace, 'before'), {});
      assert.deepEqual((await events).map(summary), ['ADDED a', 'MODIFIED a', 'DELETED a', 'DELETED before']);
    });

    it('see only one object when selected by its name', async () => {
      const namespace = await bench.namespace();
      const { resourceVersion } = await bench.kube.list(RESOURCES.secrets, onlyNamed('b', namespace));
      const events = first(bench.kube.watch(RESOURCES.secrets, { ...onlyNamed('b', namespace), resourceVersion }), 2);
      await bench.kube.create(secret(namespace, 'a', {}), MANAGER);
      await bench.kube.create(secret(namespace, 'b', {}), MANAGER);
      await bench.kube.delete(ref(namespace, 'a'), {});
      await bench.kube.delete(ref(namespace, 'b'), {});
      assert.deepEqual((await events).map(summary), ['ADDED b', 'DELETED b']);
    });

    it('report added and deleted when an object enters and leaves the selection', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(secret(namespace, 'a', {}), MANAGER);
      const selection = { namespace, labelSelector: 'mesh=istio' };
      const { resourceVersion } = await bench.kube.list(RESOURCES.secrets, selection);
      const events = first(bench.kube.watch(RESOURCES.secrets, { ...selection, resourceVersion }), 3);
      await bench.kube.merge(ref(namespace, 'a'), { metadata: { labels: { mesh: 'istio' } } }, MANAGER);
      await bench.kube.merge(ref(namespace, 'a'), { data: { x: base64('1') } }, MANAGER);
      await bench.kube.merge(ref(namespace, 'a'), { metadata: { labels: { mesh: null } } }, MANAGER);
      assert.deepEqual((await events).map(summary), ['ADDED a', 'MODIFIED a', 'DELETED a']);
    });

    it('end by themselves after timeoutSeconds', async () => {
      const namespace = await bench.namespace();
      const { resourceVersion } = await bench.kube.list(RESOURCES.secrets, { namespace });
      const selection = { namespace, resourceVersion, timeoutSeconds: 1 };
      const seen: WatchEvent[] = [];
      for await (const event of bench.kube.watch(RESOURCES.secrets, selection)) seen.push(event);
      assert.ok(seen.every((event) => event.type === 'BOOKMARK'));
    });

    it('stop when aborted', async (test) => {
      const namespace = await bench.namespace();
      const stop = stopAfter(test);
      const { resourceVersion } = await bench.kube.list(RESOURCES.secrets, { namespace });
      const opened = () => stop.abort(new Error('enough'));
      const events = first(bench.kube.watch(RESOURCES.secrets, { namespace, resourceVersion, opened }, stop.signal), 1);
      await assert.rejects(events, /enough/);
    });

    it('are followed by a reflector through creation, change and deletion', async (test) => {
      const namespace = await bench.namespace();
      await bench.kube.create(secret(namespace, 'a', { x: '1' }), MANAGER);
      const stop = stopAfter(test);
      const options = { clock: systemClock, random: Math.random, log: silentLog, signal: stop.signal };
      const reflector = reflect(bench.kube, RESOURCES.secrets, { namespace }, options);
      await reflector.synced;
      const key = (name: string) => keyOf(ref(namespace, name));
      assert.deepEqual([...reflector.items().keys()], [key('a')]);

      const made = await bench.kube.create(secret(namespace, 'b', { x: '1' }), MANAGER);
      await until(reflector, () => reflector.items().has(keyOf(refOf(made))));
      assert.deepEqual(reflector.items().get(key('b')), made);
      await bench.kube.merge(ref(namespace, 'b'), { data: { x: base64('2') } }, MANAGER);
      await until(reflector, () => isDeepStrictEqual(reflector.items().get(key('b'))?.data, { x: base64('2') }));
      await bench.kube.delete(ref(namespace, 'a'), {});
      await until(reflector, () => !reflector.items().has(key('a')));
      assert.equal(reflector.problem, undefined);
      stop.abort();
      await reflector.ended;
    });

    it('continue after a compaction without missing anything', async (test) => {
      if (!bench.target.compact) return test.skip('this server cannot drop its history');
      const namespace = await bench.namespace();
      const stop = stopAfter(test);
      const options = { clock: systemClock, random: Math.random, log: silentLog, signal: stop.signal };
      const reflector = reflect(bench.kube, RESOURCES.secrets, { namespace }, options);
      await reflector.synced;
      await bench.target.compact();
      await bench.kube.create(secret(namespace, 'a', {}), MANAGER);
      await until(reflector, () => reflector.items().size === 1);
      stop.abort();
      await reflector.ended;
    });
  });
}

async function until(reflector: Reflector, seen: () => boolean): Promise<void> {
  for await (const _ of reflector.changes()) if (seen()) return;
}
