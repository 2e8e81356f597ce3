import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KubeObject } from '../../../src/objects/objects.ts';
import { type Bench, base64, MANAGER, OTHER, secret } from './target.ts';

const managersOf = (object: KubeObject) =>
  Object.fromEntries(
    (object.metadata.managedFields ?? []).map((entry) => [
      `${entry.manager}:${entry.operation}${entry.subresource ? `:${entry.subresource}` : ''}`,
      entry.fieldsV1,
    ]),
  );

export function applyContract(bench: Bench): void {
  describe('server-side apply', () => {
    const configMap = (namespace: string, data: Record<string, string>, more: object = {}) => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'a', namespace, ...more },
      data,
    });

    it('creates a missing object and claims exactly what was applied', async () => {
      const namespace = await bench.namespace();
      const made = await bench.kube.apply(secret(namespace, 'a', { x: '1' }, { labels: { l: 'm' } }), MANAGER);
      assert.deepEqual(managersOf(made), {
        'meshcert:Apply': { 'f:data': { 'f:x': {} }, 'f:metadata': { 'f:labels': { 'f:l': {} } }, 'f:type': {} },
      });
    });

    it('gives no new version to the same configuration applied again', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      const again = await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      assert.equal(again.metadata.resourceVersion, first.metadata.resourceVersion);
    });

    it('names the manager and the field of a conflict', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(configMap(namespace, { 'ca.crt': 'one', y: '2' }), MANAGER);
      await assert.rejects(
        bench.kube.apply(configMap(namespace, { 'ca.crt': 'two' }), OTHER),
        (error: Error & { code?: string; status?: number; reason?: string }) => {
          assert.equal(error.code, 'ERR_KUBE_CONFLICT');
          assert.equal(error.reason, 'Conflict');
          assert.match(error.message, /Apply failed with 1 conflict: conflict with "meshcert": \.data\.ca\.crt/);
          return true;
        },
      );
    });

    it('lets two managers share a field on which they agree', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      const shared = await bench.kube.apply(configMap(namespace, { x: '1' }), OTHER);
      assert.deepEqual(managersOf(shared), {
        'meshcert:Apply': { 'f:data': { 'f:x': {} } },
        'kubectl:Apply': { 'f:data': { 'f:x': {} } },
      });
    });

    it('takes fields over by force', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(configMap(namespace, { x: '1', y: '1' }), MANAGER);
      const taken = await bench.kube.apply(configMap(namespace, { x: '2' }), { ...OTHER, force: true });
      assert.deepEqual(taken.data, { x: '2', y: '1' });
      assert.deepEqual(managersOf(taken), {
        'meshcert:Apply': { 'f:data': { 'f:y': {} } },
        'kubectl:Apply': { 'f:data': { 'f:x': {} } },
      });
    });

    it('drops what the manager applied before and no longer applies, unless somebody else owns it', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(configMap(namespace, { x: '1', y: '1', z: '1' }), MANAGER);
      await bench.kube.apply(configMap(namespace, { y: '1' }), OTHER);
      const after = await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      assert.deepEqual(after.data, { x: '1', y: '1' });
    });

    it('leaves no data when the last key is dropped', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(configMap(namespace, { x: '1' }, { labels: { l: 'm' } }), MANAGER);
      const { data: _, ...empty } = configMap(namespace, {});
      const after = await bench.kube.apply(empty, MANAGER);
      assert.equal(after.data, undefined);
      assert.equal(after.metadata.labels, undefined);
    });

    it('conflicts with a manager that changed the field by an ordinary write', async () => {
      const namespace = await bench.namespace();
      const made = await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      const edited = await bench.kube.replace({ ...made, data: { x: '2' } }, OTHER);
      assert.deepEqual(managersOf(edited), { 'kubectl:Update': { 'f:data': { 'f:x': {} } } });
      await assert.rejects(
        bench.kube.apply(configMap(namespace, { x: '3' }), MANAGER),
        /conflict with "kubectl" using v1: \.data\.x/,
      );
    });

    it('keeps labels and annotations that others set', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(configMap(namespace, {}, { labels: { ours: '1' } }), MANAGER);
      const ref = { apiVersion: 'v1', kind: 'ConfigMap', namespace, name: 'a' };
      await bench.kube.merge(ref, { metadata: { labels: { theirs: '1' } } }, OTHER);
      const after = await bench.kube.apply(configMap(namespace, {}, { labels: { ours: '2' } }), MANAGER);
      assert.deepEqual(after.metadata.labels, { ours: '2', theirs: '1' });
    });

    it('is refused when the named version is not the live one', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      const { resourceVersion } = first.metadata;
      const second = await bench.kube.apply(configMap(namespace, { x: '2' }, { resourceVersion }), MANAGER);
      await assert.rejects(bench.kube.apply(configMap(namespace, { x: '3' }, { resourceVersion }), MANAGER), {
        code: 'ERR_KUBE_CONFLICT',
        status: 409,
      });
      assert.equal(
        (await bench.kube.get({ ...second, namespace, name: 'a' }))?.metadata.resourceVersion,
        second.metadata.resourceVersion,
      );
    });

    it('is refused when a uid is named and there is no object', async () => {
      const namespace = await bench.namespace();
      const uid = '00000000-0000-0000-0000-000000000000';
      await assert.rejects(bench.kube.apply(configMap(namespace, {}, { uid }), MANAGER), { code: 'ERR_KUBE_CONFLICT' });
      assert.equal(await bench.kube.get({ apiVersion: 'v1', kind: 'ConfigMap', namespace, name: 'a' }), undefined);
    });

    it('creates the object again, whatever version was named, when it is gone', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      const { resourceVersion } = first.metadata;
      await bench.kube.delete({ ...first, namespace, name: 'a' }, {});
      const again = await bench.kube.apply(configMap(namespace, { x: '2' }, { resourceVersion }), MANAGER);
      assert.notEqual(again.metadata.uid, first.metadata.uid);
    });

    it('does not move the time of an entry that did not change', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.apply(secret(namespace, 'a', { x: '1' }), MANAGER);
      const other = await bench.kube.merge(
        { ...first, namespace, name: 'a' },
        { metadata: { annotations: { n: '1' } } },
        OTHER,
      );
      const again = await bench.kube.apply(secret(namespace, 'a', { x: '1' }), MANAGER);
      assert.equal(again.metadata.resourceVersion, other.metadata.resourceVersion);
      assert.deepEqual(again.data, { x: base64('1') });
    });

    it('changes nothing on a dry run, and reports conflicts', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.apply(configMap(namespace, { x: '1' }), MANAGER);
      const would = await bench.kube.apply(configMap(namespace, { x: '2' }), { ...MANAGER, dryRun: true });
      assert.deepEqual(would.data, { x: '2' });
      await assert.rejects(bench.kube.apply(configMap(namespace, { x: '2' }), { ...OTHER, dryRun: true }), {
        status: 409,
      });
      assert.deepEqual(await bench.kube.get({ ...first, namespace, name: 'a' }), first);
    });
  });
}
