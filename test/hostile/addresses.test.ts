import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { parseDocuments } from '../../src/config/documents.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { gateways } from '../../src/gateways.ts';
import { connect } from '../../src/kube/client.ts';
import type { KubeObject } from '../../src/objects/objects.ts';

const istio = { istio: { ca: { serviceAccount: 'emissary' } } };

/** Each field that is dialled, and a spec with this value in it. */
const FIELDS: Readonly<Record<string, (address: string) => object>> = {
  'spec.probe.address': (address) => ({ ...istio, probe: { address } }),
  'spec.istio.ca.address': (address) => ({ istio: { ca: { serviceAccount: 'emissary', address } } }),
  'spec.linkerd.address': (address) => ({ linkerd: { serviceAccount: { name: 'emissary' }, address } }),
  'spec.consul.http.address': (address) => ({ consul: { http: { address: `http://${address}` } } }),
  'spec.consul.grpc.addresses[0]': (address) => ({ consul: { datacenter: 'dc1', grpc: { addresses: [address] } } }),
};

const document = (spec: object): KubeObject => ({
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  metadata: { name: 'istio', namespace: 'emissary' },
  spec,
});

describe('an address that cannot be dialled', () => {
  for (const [path, specOf] of Object.entries(FIELDS)) {
    it(`is refused in ${path} of a file, with the field's path`, () => {
      for (const address of ['h:99999', 'h:0', '[:80', 'h:80/path', 'h h:80']) {
        const { documents, errors } = parseDocuments(
          stringify(document(specOf(address))),
          'mesh.yaml',
          adapters,
          gateways,
        );
        assert.deepEqual([documents.length, errors.map((error) => error.path)], [0, [path]], address);
        assert.match(errors[0]?.message ?? '', /expected |is not a URL/);
      }
      const { errors } = parseDocuments(
        stringify(document(specOf('[2001:db8::1]:65535'))),
        'mesh.yaml',
        adapters,
        gateways,
      );
      assert.deepEqual(errors, []);
    });
  }

  it('is refused by the API server too', async () => {
    const api = await startKubeApi({
      namespaces: ['emissary'],
      objects: [customResourceDefinition(adapters, gateways)],
    });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    try {
      for (const [path, specOf] of Object.entries(FIELDS)) {
        for (const address of ['h:99999', 'h:0', '[:80']) {
          const created = kube.create(document(specOf(address)), { fieldManager: 'test', dryRun: true });
          await assert.rejects(created, { code: 'ERR_KUBE_INVALID' }, `${path} ${address}`);
        }
        await kube.create(document(specOf('web.shop:443')), { fieldManager: 'test', dryRun: true });
      }
    } finally {
      kube.close();
      await api.stop();
    }
  });
});
