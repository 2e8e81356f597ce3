import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { connect } from '../../../src/kube/client.ts';
import { onlyNamed, RESOURCES, servedTrustBundles, trustBundleOf } from '../../../src/kube/resources.ts';
import type { KubeObject, Resource } from '../../../src/objects/objects.ts';
import { type Bench, OTHER } from './target.ts';

const SIGNER = 'istio.io/istiod-ca';
const NAME = 'istio.io:istiod-ca:root-cert';
const RBAC = 'rbac.authorization.k8s.io/v1';
const ROLES: readonly Resource[] = [
  { apiVersion: RBAC, kind: 'ClusterRole', plural: 'clusterroles', namespaced: false },
  { apiVersion: RBAC, kind: 'ClusterRoleBinding', plural: 'clusterrolebindings', namespaced: false },
];
const { signal } = new AbortController();

export function trustBundleContract(bench: Bench): void {
  describe('ClusterTrustBundles', () => {
    const pem = () => SandboxCa.root().certificate.pem;
    const kind = () => ({
      apiVersion: `certificates.k8s.io/${bench.target.trustBundles}`,
      kind: 'ClusterTrustBundle',
    });
    const bundle = (name: string, spec: object): KubeObject => ({ ...kind(), metadata: { name }, spec });
    /** An account that may read this one and nothing else. */
    async function reader(name: string): Promise<Kube> {
      const namespace = await bench.namespace();
      const subject = { kind: 'ServiceAccount', name: 'reader', namespace };
      const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: namespace };
      const rule = {
        apiGroups: ['certificates.k8s.io'],
        resources: ['clustertrustbundles'],
        resourceNames: [name],
        verbs: ['get', 'list', 'watch'],
      };
      const metadata = { name: namespace };
      const admin = connect({ kubeconfigText: bench.target.kubeconfig(), userAgent: 'contract/1', kinds: ROLES });
      try {
        for (const object of [
          { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'reader', namespace } },
          { apiVersion: RBAC, kind: 'ClusterRole', metadata, rules: [rule] },
          { apiVersion: RBAC, kind: 'ClusterRoleBinding', metadata, subjects: [subject], roleRef },
        ]) {
          await admin.create(object, OTHER);
        }
      } finally {
        admin.close();
      }
      const audience = 'https://kubernetes.default.svc.cluster.local';
      const { token } = await bench.kube.token({ name: 'reader', namespace }, audience, 600);
      return bench.connectAs(token);
    }

    it('are found in the version that is served', async () => {
      const { clusterTrustBundles: v1, betaClusterTrustBundles: v1beta1 } = RESOURCES;
      const [served, other] = bench.target.trustBundles === 'v1' ? [v1, v1beta1] : [v1beta1, v1];
      assert.deepEqual(await servedTrustBundles(bench.kube, NAME, signal), served);
      await assert.rejects(bench.kube.list(other, {}), { status: 404 });
    });

    it('are named after their signer, and hold certificates', async () => {
      const wrong: readonly (readonly [string, object, RegExp])[] = [
        ['other', { signerName: SIGNER, trustBundle: pem() }, /must be named with prefix istio\.io:istiod-ca:/],
        ['a:b', { trustBundle: pem() }, /must not have ":" in its name/],
        [`${NAME}-empty`, { signerName: SIGNER, trustBundle: '' }, /trust anchor must be provided|Required value/],
      ];
      for (const [name, spec, message] of wrong) {
        await assert.rejects(bench.kube.create(bundle(name, spec), OTHER), { status: 422, message });
      }
    });

    it('are listed and watched by name, with the rights for that name alone', async () => {
      const kube = await reader(NAME);
      const ref = { ...kind(), name: NAME };
      const [first, second] = [pem(), pem()];
      const made = await bench.kube.create(bundle(NAME, { signerName: SIGNER, trustBundle: first }), OTHER);
      assert.equal(trustBundleOf(await kube.get(ref)), first);
      const resource = await servedTrustBundles(kube, NAME, signal);
      const { items, resourceVersion } = await kube.list(resource, onlyNamed(NAME, undefined));
      assert.equal(items.length, 1);
      const events = kube.watch(resource, { ...onlyNamed(NAME, undefined), resourceVersion });
      const next = events[Symbol.asyncIterator]().next();
      await bench.kube.replace({ ...made, spec: { signerName: SIGNER, trustBundle: second } }, OTHER);
      assert.equal(trustBundleOf((await next).value?.object), second);
      await bench.kube.delete(ref, {});
      assert.equal(await kube.get(ref), undefined);
    });
  });
}
