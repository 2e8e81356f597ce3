import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { serviceObjects } from '../../../sandbox/linkerd/objects.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import type { KubeObject } from '../../../src/objects/objects.ts';
import { type Bench, base64, MANAGER, OTHER, secret } from './target.ts';

export function objectContract(bench: Bench): void {
  describe('objects', () => {
    const ref = (namespace: string, name: string) => ({ apiVersion: 'v1', kind: 'Secret', namespace, name });

    it('stores a created object and gives it uid, version and time', async () => {
      const namespace = await bench.namespace();
      const made = await bench.kube.create(secret(namespace, 'a', { x: '1' }), MANAGER);
      assert.match(made.metadata.uid ?? '', /^[0-9a-f-]{36}$/);
      assert.match(made.metadata.creationTimestamp ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      const found = await bench.kube.get(ref(namespace, 'a'));
      assert.deepEqual(found, made);
    });

    it('accepts the EndpointSlices that the sandbox makes for a Service of Linkerd', async () => {
      const namespace = await bench.namespace();
      const options = { name: 'web-0', namespace, serviceAccount: 'web' };
      const pods = [0, 1].map((at) => ({ options: { ...options, name: `web-${at}` }, port: 8443 }));
      const objects = serviceObjects({ name: 'web', namespace, port: 443, pods, controlPlane: 'linkerd' });
      const slices = objects.filter(({ kind }) => kind === 'EndpointSlice');
      assert.equal(slices.length, 2);
      for (const slice of slices) assert.ok(await bench.kube.apply(slice, MANAGER));
      const loopback = JSON.parse(JSON.stringify(slices[0]).replace(/"10\.1\.0\.\d+"/, '"127.0.0.1"')) as KubeObject;
      await assert.rejects(bench.kube.apply(loopback, MANAGER), {
        code: 'ERR_KUBE_INVALID',
        message: /endpoints\[0\]\.addresses\[0\].*loopback/,
      });
    });

    it('answers undefined for a missing object, and false when asked to delete it', async () => {
      const namespace = await bench.namespace();
      assert.equal(await bench.kube.get(ref(namespace, 'none')), undefined);
      assert.equal(await bench.kube.delete(ref(namespace, 'none'), {}), false);
    });

    it('refuses a second object of the same name', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(secret(namespace, 'a', {}), MANAGER);
      await assert.rejects(bench.kube.create(secret(namespace, 'a', {}), MANAGER), {
        code: 'ERR_KUBE_EXISTS',
        status: 409,
        reason: 'AlreadyExists',
      });
    });

    it('refuses to create an object that has a version', async () => {
      const namespace = await bench.namespace();
      await assert.rejects(bench.kube.create(secret(namespace, 'a', {}, { resourceVersion: '5' }), MANAGER), {
        name: 'KubeError',
        status: 500,
      });
    });

    it('refuses to create in a namespace that does not exist', async () => {
      await assert.rejects(bench.kube.create(secret('no-such-namespace', 'a', {}), MANAGER), {
        code: 'ERR_KUBE_NOT_FOUND',
        status: 404,
      });
    });

    it('replaces only the version that was named', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.create(secret(namespace, 'a', { x: '1' }), MANAGER);
      const second = await bench.kube.replace({ ...first, data: { x: base64('2') } }, MANAGER);
      assert.notEqual(second.metadata.resourceVersion, first.metadata.resourceVersion);
      await assert.rejects(bench.kube.replace({ ...first, data: { x: base64('3') } }, MANAGER), {
        code: 'ERR_KUBE_CONFLICT',
        status: 409,
      });
    });

    it('gives no new version to a write that changes nothing', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.create(secret(namespace, 'a', { x: '1' }), MANAGER);
      const again = await bench.kube.replace(first, MANAGER);
      assert.equal(again.metadata.resourceVersion, first.metadata.resourceVersion);
      const patched = await bench.kube.merge(ref(namespace, 'a'), { data: { x: base64('1') } }, MANAGER);
      assert.equal(patched.metadata.resourceVersion, first.metadata.resourceVersion);
    });

    it('merges annotations without touching the rest', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(secret(namespace, 'a', { x: '1' }, { annotations: { keep: 'me' } }), MANAGER);
      const patch = { metadata: { annotations: { 'meshcert.dev/renew': 'now' } } };
      const patched = await bench.kube.merge(ref(namespace, 'a'), patch, OTHER);
      assert.deepEqual(patched.metadata.annotations, { keep: 'me', 'meshcert.dev/renew': 'now' });
      const back = await bench.kube.merge(
        ref(namespace, 'a'),
        { metadata: { annotations: { 'meshcert.dev/renew': null } } },
        OTHER,
      );
      assert.deepEqual(back.metadata.annotations, { keep: 'me' });
      assert.deepEqual(back.data, { x: base64('1') });
    });

    it('deletes only the object and version that were named', async () => {
      const namespace = await bench.namespace();
      const made = await bench.kube.create(secret(namespace, 'a', { x: '1' }), MANAGER);
      const { uid = '', resourceVersion = '' } = made.metadata;
      await bench.kube.merge(ref(namespace, 'a'), { data: { x: base64('2') } }, MANAGER);
      await assert.rejects(bench.kube.delete(ref(namespace, 'a'), { resourceVersion }), { code: 'ERR_KUBE_CONFLICT' });
      const stranger = '00000000-0000-0000-0000-000000000000';
      await assert.rejects(bench.kube.delete(ref(namespace, 'a'), { uid: stranger }), { code: 'ERR_KUBE_CONFLICT' });
      assert.equal(await bench.kube.delete(ref(namespace, 'a'), { uid }), true);
      assert.equal(await bench.kube.get(ref(namespace, 'a')), undefined);
    });

    it('changes nothing on a dry run, and returns the result', async () => {
      const namespace = await bench.namespace();
      const dry = { ...MANAGER, dryRun: true };
      const would = await bench.kube.create(secret(namespace, 'a', { x: '1' }), dry);
      assert.deepEqual(would.data, { x: base64('1') });
      assert.equal(await bench.kube.get(ref(namespace, 'a')), undefined);
      const made = await bench.kube.create(secret(namespace, 'a', { x: '1' }), MANAGER);
      const changed = await bench.kube.merge(ref(namespace, 'a'), { data: { x: base64('2') } }, dry);
      assert.deepEqual(changed.data, { x: base64('2') });
      assert.deepEqual(await bench.kube.get(ref(namespace, 'a')), made);
    });

    it('refuses a TLS Secret without its key', async () => {
      const namespace = await bench.namespace();
      const half = { ...secret(namespace, 'a', { 'tls.crt': 'x' }), type: 'kubernetes.io/tls' };
      await assert.rejects(bench.kube.create(half, MANAGER), (error: Error & { code?: string; status?: number }) => {
        assert.equal(error.code, 'ERR_KUBE_INVALID');
        assert.equal(error.status, 422);
        assert.match(error.message, /data\[tls\.key\]: Required value/);
        return true;
      });
    });

    it("refuses to change a Secret's type", async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(secret(namespace, 'a', { 'tls.crt': 'x', 'tls.key': 'y' }), MANAGER);
      const patch = { type: 'kubernetes.io/tls' };
      await assert.rejects(bench.kube.merge(ref(namespace, 'a'), patch, MANAGER), {
        code: 'ERR_KUBE_INVALID',
        status: 422,
      });
    });

    it('refuses data that is not base64', async () => {
      const namespace = await bench.namespace();
      const bad = { ...secret(namespace, 'a', {}), data: { x: 'not base64!' } };
      await assert.rejects(bench.kube.create(bad, MANAGER), { code: 'ERR_KUBE_INVALID', status: 400 });
    });

    it('refuses names that are not DNS subdomains', async () => {
      const namespace = await bench.namespace();
      await assert.rejects(bench.kube.create(secret(namespace, 'Not_A_Name', {}), MANAGER), { status: 422 });
    });

    it('keeps an object that finalizers hold, until they are gone', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(secret(namespace, 'a', {}, { finalizers: ['meshcert.dev/retire'] }), MANAGER);
      assert.equal(await bench.kube.delete(ref(namespace, 'a'), {}), true);
      const held = await bench.kube.get(ref(namespace, 'a'));
      assert.ok(held?.metadata.deletionTimestamp);
      await bench.kube.merge(ref(namespace, 'a'), { metadata: { finalizers: null } }, MANAGER);
      assert.equal(await bench.kube.get(ref(namespace, 'a')), undefined);
    });

    it('selects by labels and by name', async () => {
      const namespace = await bench.namespace();
      const labels: Record<string, Record<string, string>> = {
        a: { mesh: 'istio' },
        b: { mesh: 'linkerd', tier: 'web' },
        c: {},
      };
      for (const [name, set] of Object.entries(labels)) {
        await bench.kube.create(secret(namespace, name, {}, { labels: set }), MANAGER);
      }
      const names = async (selection: { labelSelector?: string; fieldSelector?: string }) => {
        const { items } = await bench.kube.list(RESOURCES.secrets, { namespace, ...selection });
        return items.map((item) => item.metadata.name).join(' ');
      };
      assert.equal(await names({}), 'a b c');
      assert.equal(await names({ labelSelector: 'mesh=istio' }), 'a');
      assert.equal(await names({ labelSelector: 'mesh in (istio,linkerd),tier!=web' }), 'a');
      assert.equal(await names({ labelSelector: 'mesh notin (istio)' }), 'b c');
      assert.equal(await names({ labelSelector: 'mesh' }), 'a b');
      assert.equal(await names({ labelSelector: '!mesh' }), 'c');
      assert.equal(await names({ fieldSelector: 'metadata.name=b' }), 'b');
      assert.equal(await names({ fieldSelector: 'metadata.name!=b' }), 'a c');
      assert.equal(await names({ fieldSelector: 'type=kubernetes.io/tls' }), '');
      await assert.rejects(names({ fieldSelector: 'data.x=1' }), { status: 400 });
    });

    it('lists many pages as one list of one version', async () => {
      const namespace = await bench.namespace();
      const all = Array.from({ length: 1_100 }, (_, index) => `cm-${String(index).padStart(4, '0')}`);
      const make = (name: string) =>
        bench.kube.create(
          { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace } } as KubeObject,
          MANAGER,
        );
      for (let at = 0; at < all.length; at += 50) await Promise.all(all.slice(at, at + 50).map(make));
      const { items, resourceVersion } = await bench.kube.list(RESOURCES.configMaps, { namespace });
      const found = items.filter((item) => item.metadata.name.startsWith('cm-'));
      assert.deepEqual(
        found.map((item) => item.metadata.name),
        all,
      );
      assert.ok(Number(resourceVersion) > 0);
      assert.ok(items.every((item) => item.kind === 'ConfigMap' && item.apiVersion === 'v1'));
    });
  });
}
