import assert from 'node:assert/strict';
import { it } from 'node:test';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { emissary } from '../gateway/emissary/gateway.ts';
import { connect } from '../kube/client.ts';
import { alone } from './election.ts';
import { applyChange } from './routes.ts';
import { BatchGap } from './write-order.ts';

it('does not recreate a Mapping that was deleted after it was judged', async () => {
  const ref = { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', namespace: 'default', name: 'web' };
  const { apiVersion, kind, namespace, name } = ref;
  const mapping = { apiVersion, kind, metadata: { name, namespace }, spec: { prefix: '/', service: 'https://web' } };
  const api = await startKubeApi({ tls: false, objects: [mapping] });
  const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
  try {
    const judged = await kube.get(ref);
    assert.ok(judged);
    await kube.delete(ref, {});
    const means = {
      kube,
      gateway: 'emissary',
      batchGap: new BatchGap(new FakeClock(), [emissary]),
      fence: alone.fence(''),
    };
    const change = { fields: { spec: { tls: 'istio' } }, fieldManager: 'meshcert-mappings' };
    await assert.rejects(applyChange(judged, change, means, new AbortController().signal), {
      code: 'ERR_KUBE_CONFLICT',
    });
    assert.equal(await kube.get(ref), undefined);
  } finally {
    kube.close();
    await api.stop();
  }
});
