import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ambassadorDefinitions } from '../../../sandbox/kube/ambassador.ts';
import { systemClock } from '../../../src/async/clock.ts';
import { EMISSARY_RESOURCES } from '../../../src/gateway/emissary/config.ts';
import { connect } from '../../../src/kube/client.ts';
import { reflect } from '../../../src/kube/reflector.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { silentLog } from '../../../src/mesh/log.ts';
import type { KubeObject } from '../../../src/objects/objects.ts';
import { type Bench, MANAGER, OTHER, stopAfter } from './target.ts';

/** A stand-in for MeshCertificate: the same name, with a schema that these tests know. */
const definition = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'meshcertificates.meshcert.dev' },
  spec: {
    group: 'meshcert.dev',
    scope: 'Namespaced',
    names: {
      kind: 'MeshCertificate',
      listKind: 'MeshCertificateList',
      plural: 'meshcertificates',
      singular: 'meshcertificate',
      shortNames: ['mcert'],
    },
    versions: [
      {
        name: 'v1alpha1',
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: {
          openAPIV3Schema: {
            type: 'object',
            properties: {
              spec: {
                type: 'object',
                required: ['mesh'],
                properties: {
                  mesh: { type: 'string', enum: ['istio', 'linkerd', 'consul'] },
                  hold: { type: 'string', default: '10m' },
                  ids: { type: 'array', items: { type: 'string' } },
                },
              },
              status: {
                type: 'object',
                properties: {
                  observedGeneration: { type: 'integer' },
                  conditions: {
                    type: 'array',
                    'x-kubernetes-list-type': 'map',
                    'x-kubernetes-list-map-keys': ['type'],
                    items: {
                      type: 'object',
                      required: ['type'],
                      properties: { type: { type: 'string' }, status: { type: 'string' } },
                    },
                  },
                },
              },
            },
          },
        },
      },
    ],
  },
};

export function definitionContract(bench: Bench): void {
  describe('custom resources', () => {
    const custom = (namespace: string, spec: object, more: object = {}): KubeObject => ({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'a', namespace, ...more },
      spec,
    });
    const ref = (namespace: string) => ({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      namespace,
      name: 'a',
    });

    it('are found by a reflector that started before their definition existed', async (test) => {
      const namespace = await bench.namespace();
      const stop = stopAfter(test);
      const problems: Error[] = [];
      const reflector = reflect(
        bench.kube,
        RESOURCES.meshCertificates,
        { namespace },
        {
          clock: systemClock,
          random: () => 0,
          log: silentLog,
          signal: stop.signal,
          onError(error) {
            if (problems.push(error) === 1) bench.kube.create(definition, OTHER).catch(() => stop.abort());
          },
        },
      );
      await reflector.synced;
      assert.equal((problems[0] as { code?: string } | undefined)?.code, 'ERR_KUBE_NOT_FOUND');
      assert.equal(reflector.items().size, 0);
      await bench.kube.apply(custom(namespace, { mesh: 'istio' }), MANAGER);
      for await (const _ of reflector.changes()) if (reflector.items().size === 1) break;
      stop.abort();
      await reflector.ended;
    });

    it('get their defaults and lose unknown fields', async () => {
      const namespace = await bench.namespace();
      const made = await bench.kube.create(custom(namespace, { mesh: 'istio', unheard: 'of' }), MANAGER);
      assert.deepEqual(made.spec, { mesh: 'istio', hold: '10m' });
    });

    it('are refused by apply when the schema lacks a field: an older definition is installed', async () => {
      const namespace = await bench.namespace();
      await assert.rejects(
        bench.kube.apply(custom(namespace, { mesh: 'istio', unheard: 'of' }), MANAGER),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'ERR_KUBE_INVALID');
          assert.match(error.message, /\.spec\.unheard: field not declared in schema/);
          return true;
        },
      );
    });

    it('are claimed without their defaults', async () => {
      const namespace = await bench.namespace();
      const made = await bench.kube.apply(custom(namespace, { mesh: 'istio' }), MANAGER);
      assert.deepEqual(made.metadata.managedFields?.[0]?.fieldsV1, { 'f:spec': { 'f:mesh': {} } });
    });

    it('are refused when they break the schema', async () => {
      const namespace = await bench.namespace();
      const refused = { code: 'ERR_KUBE_INVALID', status: 422 };
      await assert.rejects(bench.kube.apply(custom(namespace, { mesh: 'kuma' }), MANAGER), refused);
      await assert.rejects(bench.kube.apply(custom(namespace, {}), MANAGER), refused);
      await assert.rejects(bench.kube.create(custom(namespace, { mesh: 'istio', ids: [1] }), MANAGER), refused);
    });

    it('count generations of their spec only, and write status apart', async () => {
      const namespace = await bench.namespace();
      const first = await bench.kube.apply(
        { ...custom(namespace, { mesh: 'istio' }), status: { observedGeneration: 9 } },
        MANAGER,
      );
      assert.equal(first.metadata.generation, 1);
      assert.equal(first.status, undefined);
      const condition = { type: 'Ready', status: 'True' };
      const { spec: _, ...bare } = custom(namespace, {});
      const status = { observedGeneration: 1, conditions: [condition] };
      const reported = await bench.kube.apply({ ...bare, status }, { ...MANAGER, subresource: 'status' });
      assert.equal(reported.metadata.generation, 1);
      assert.deepEqual(reported.status, status);
      assert.deepEqual(reported.spec, { mesh: 'istio', hold: '10m' });
      const labelled = await bench.kube.merge(ref(namespace), { metadata: { labels: { l: 'm' } } }, OTHER);
      assert.equal(labelled.metadata.generation, 1);
      const changed = await bench.kube.apply(custom(namespace, { mesh: 'linkerd' }), MANAGER);
      assert.equal(changed.metadata.generation, 2);
      assert.deepEqual(changed.status, status);
    });

    it('give no new version to the same status applied again', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(custom(namespace, { mesh: 'istio' }), MANAGER);
      const { spec: _, ...bare } = custom(namespace, {});
      const report = { ...bare, status: { observedGeneration: 1, conditions: [{ type: 'Ready', status: 'True' }] } };
      const options = { ...MANAGER, subresource: 'status' } as const;
      const first = await bench.kube.apply(report, options);
      const again = await bench.kube.apply(report, options);
      assert.equal(again.metadata.resourceVersion, first.metadata.resourceVersion);
    });

    it('merge lists of conditions by their type', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(custom(namespace, { mesh: 'istio' }), MANAGER);
      const { spec: _, ...bare } = custom(namespace, {});
      const report = (type: string) => ({ ...bare, status: { conditions: [{ type, status: 'True' }] } });
      await bench.kube.apply(report('Ready'), { ...MANAGER, subresource: 'status' });
      const both = await bench.kube.apply(report('Published'), { ...OTHER, subresource: 'status' });
      const conditions = (both.status as { conditions: { type: string }[] }).conditions;
      assert.deepEqual(conditions.map((one) => one.type).sort(), ['Published', 'Ready']);
      const own = both.metadata.managedFields?.find((entry) => entry.manager === 'kubectl');
      assert.deepEqual(own?.fieldsV1, {
        'f:status': { 'f:conditions': { 'k:{"type":"Published"}': { '.': {}, 'f:status': {}, 'f:type': {} } } },
      });
    });

    it('cannot be watched from a version that is too old', async () => {
      const namespace = await bench.namespace();
      const events = bench.kube.watch(RESOURCES.meshCertificates, { namespace, resourceVersion: '1' });
      await assert.rejects(events[Symbol.asyncIterator]().next(), {
        code: 'ERR_KUBE_GONE',
        status: 410,
        reason: 'Expired',
      });
    });

    it('lose what was applied and no longer is, including a parent that becomes empty', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(custom(namespace, { mesh: 'istio', ids: ['a'] }, { annotations: { a: 'b' } }), MANAGER);
      const less = await bench.kube.apply(custom(namespace, { mesh: 'istio' }), MANAGER);
      assert.deepEqual(less.spec, { mesh: 'istio', hold: '10m' });
      assert.equal(less.metadata.annotations, undefined);
    });

    it('refuse a replacement that names no version', async () => {
      const namespace = await bench.namespace();
      await bench.kube.apply(custom(namespace, { mesh: 'istio' }), MANAGER);
      const kube = connect({ kubeconfigText: bench.target.kubeconfig(), userAgent: 'contract/1' });
      await assert.rejects(kube.replace(custom(namespace, { mesh: 'consul' }), MANAGER), TypeError);
      kube.close();
    });

    it("include the gateway's own kinds once they are defined", async (test) => {
      for (const one of ambassadorDefinitions()) {
        const known = await bench.kube.get({ ...one, name: one.metadata.name });
        if (!known) await bench.kube.create(one, OTHER);
      }
      const namespace = await bench.namespace();
      const context: KubeObject = {
        apiVersion: 'getambassador.io/v3alpha1',
        kind: 'TLSContext',
        metadata: { name: 'istio', namespace },
        spec: { hosts: [], secret: 'istio-identity', ca_secret: 'istio-ca', min_tls_version: 'v1.2' },
      };
      const stop = stopAfter(test);
      const options = { clock: systemClock, random: () => 0, log: silentLog, signal: stop.signal };
      const reflector = reflect(bench.kube, EMISSARY_RESOURCES.tlsContexts, { namespace }, options);
      await reflector.synced;
      const made = await bench.kube.apply(context, MANAGER);
      assert.deepEqual(made.spec, {
        hosts: [],
        secret: 'istio-identity',
        ca_secret: 'istio-ca',
        min_tls_version: 'v1.2',
      });
      assert.deepEqual(made.metadata.managedFields?.[0]?.fieldsV1, {
        'f:spec': { 'f:ca_secret': {}, 'f:hosts': {}, 'f:min_tls_version': {}, 'f:secret': {} },
      });
      const wrong = { ...context, spec: { min_tls_version: 'v9' } };
      await assert.rejects(bench.kube.apply(wrong, MANAGER), { code: 'ERR_KUBE_INVALID', status: 422 });
      stop.abort();
      await reflector.ended;
    });
  });
}
