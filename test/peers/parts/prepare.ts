import { ambassadorDefinitions } from '../../../sandbox/kube/ambassador.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';

/** Namespaces with their ServiceAccounts, and the gateway's definitions; waits until these are served. */
export async function prepareCluster(
  apiserver: KubeApiserver,
  namespaces: Readonly<Record<string, readonly string[]>>,
): Promise<void> {
  for (const [namespace, accounts] of Object.entries(namespaces)) {
    await apiserver.ensureNamespace(namespace);
    for (const name of accounts) {
      const object = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } };
      await apiserver.ensure(`/api/v1/namespaces/${namespace}/serviceaccounts`, object);
    }
  }
  for (const definition of ambassadorDefinitions()) {
    await apiserver.ensure('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', definition);
  }
  for (const { spec } of ambassadorDefinitions() as unknown as { spec: { names: { plural: string } } }[]) {
    const path = `/apis/getambassador.io/v3alpha1/namespaces/default/${spec.names.plural}`;
    while ((await apiserver.call('GET', path)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
