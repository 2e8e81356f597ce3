import { Pod } from '../../../sandbox/linkerd/pod.ts';
import { systemClock } from '../../../src/async/clock.ts';
import { parseCertificates } from '../../../src/pki/certificate.ts';
import { PrivateKey } from '../../../src/pki/key.ts';
import type { Authority } from '../servers/authority.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';

/** A workload behind a proxy with a certificate of the real root, which accepts only one client. */
export async function startLinkerdWorkload(
  root: Authority,
  id: string,
  client: string,
): Promise<Pod & AsyncDisposable> {
  const { chain, key } = await (await root.intermediate('identity.linkerd')).issue({ dns: [id] });
  const roots = parseCertificates(root.root);
  const identity = { id, key: PrivateKey.fromPem(key), chain: parseCertificates(chain), roots };
  const pod = new Pod(
    { name: 'web-0', namespace: 'shop', serviceAccount: 'web', policy: { identities: [client] } },
    { clock: systemClock, id, issue: () => identity, bundle: () => roots },
  );
  await pod.start();
  return Object.assign(pod, { [Symbol.asyncDispose]: () => pod.stop() });
}

export interface BackendOptions {
  readonly account: string;
  readonly podPort?: number;
  /** Default true. */
  readonly meshed?: boolean;
}

/** A Service `name` in namespace `shop` with a pod for each item, written as the cluster's controllers would. */
export async function putBackend(
  apiserver: KubeApiserver,
  name: string,
  backends: readonly BackendOptions[],
): Promise<void> {
  const [first] = backends;
  const pod = (index: number) => `${name}-${index}`;
  await apiserver.apply('/api/v1/namespaces/shop/services', {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: { ports: [{ name: 'http', port: 443, targetPort: first?.podPort ?? 8080 }] },
  });
  for (const [index, { account, meshed = true }] of backends.entries()) {
    await apiserver.call('DELETE', `/api/v1/namespaces/shop/pods/${pod(index)}?gracePeriodSeconds=0`);
    await apiserver.apply('/api/v1/namespaces/shop/pods', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: pod(index), ...(meshed && { labels: { 'linkerd.io/control-plane-ns': 'linkerd' } }) },
      spec: { serviceAccountName: account, containers: [{ name: 'app', image: 'app' }] },
    });
  }
  await apiserver.apply('/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices', {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${name}-1`, labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: first?.podPort ?? 8080, protocol: 'TCP' }],
    endpoints: backends.map((_, index) => ({
      addresses: [`10.1.0.${index + 1}`],
      conditions: { ready: true },
      targetRef: { kind: 'Pod', namespace: 'shop', name: pod(index) },
    })),
  });
}
