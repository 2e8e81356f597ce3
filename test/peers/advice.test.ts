import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { KubeError } from '../../src/kube/transport/error.ts';
import { eventually } from './parts/eventually.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const secret = (namespace: string, name: string) => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace },
  data: {},
});

/** The advice in the error of a refused write, on a real API server: following it makes the write succeed. */
describe('the advice of a refused write', () => {
  let server: KubeApiserver;
  let kube: Kube;

  before(async () => {
    server = await startKubeApiserver();
    kube = connect({ kubeconfig: server.kubeconfigFile, userAgent: 'meshcert' });
  });
  after(async () => {
    kube?.close();
    await server?.stop();
  });

  async function refusal(namespace: string): Promise<KubeError> {
    try {
      await kube.create(secret(namespace, 'one'), { fieldManager: 'meshcert' });
    } catch (error) {
      if (error instanceof KubeError) return error;
      throw error;
    }
    throw new Error('the write was not refused');
  }

  it('says of a namespace that is being deleted that it is', async () => {
    await server.ensureNamespace('ending');
    await server.kubectl(['delete', 'namespace', 'ending', '--wait=false']);
    const error = await refusal('ending');
    assert.equal(error.code, 'ERR_KUBE_TERMINATING', error.message);
    assert.match(error.message, /the namespace ending is being deleted/);
    assert.doesNotMatch(error.message, /Role/);
  });

  it('says of a quota that it refuses, and not that a Role lacks a rule', async () => {
    await server.ensureNamespace('limited');
    const hard = { 'count/secrets': '0' };
    const metadata = { name: 'none', namespace: 'limited' };
    const quota = { apiVersion: 'v1', kind: 'ResourceQuota', metadata, spec: { hard } };
    const path = '/api/v1/namespaces/limited/resourcequotas';
    await server.ensure(path, quota);
    // No controller manager runs here: the test writes what it would compute.
    const { body } = await server.call('GET', `${path}/none`);
    const status = { hard, used: hard };
    await server.call('PUT', `${path}/none/status`, { ...(body as object), status });
    let error: KubeError | undefined;
    await eventually('the quota to be enforced', async () => {
      error = await refusal('limited').catch(() => undefined);
      if (!error) await server.call('DELETE', '/api/v1/namespaces/limited/secrets/one');
      return error !== undefined;
    });
    assert.equal(error?.code, 'ERR_KUBE_FORBIDDEN');
    assert.match(error?.message ?? '', /exceeded quota: none.*An admission rule or a quota/);
    assert.doesNotMatch(error?.message ?? '', /Grant/);
    await server.call('DELETE', `${path}/none`);
    await eventually('the write to go through', async () => {
      await kube.create(secret('limited', 'one'), { fieldManager: 'meshcert' });
      return true;
    });
  });
});
