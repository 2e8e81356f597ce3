import type { Cluster } from '../cluster.ts';
import { imageName } from '../images.ts';
import { proxyVariables, SOCKETS, TOKEN } from './istio.ts';
import { apply, deployment, rolledOut } from './objects.ts';

/** Where the SDS socket of the node is, as in the examples of the chart and of kustomize. */
const NODE_SOCKETS = '/run/spire/agent/public';

const IDLE = '/etc/proxy/envoy.json';
const VOLUMES = {
  'istio-token': '/var/run/secrets/tokens',
  'istiod-ca-cert': '/var/run/secrets/istio',
  'workload-socket': SOCKETS,
  'istio-data': '/etc/istio/proxy',
  'istio-tmp': '/tmp',
  'istio-envoy': '/etc/proxy',
};

/** What Istio's injector adds to a pod, with an Envoy that has nothing to do: the agent serves SDS on its socket. */
export function injectedProxy(socket: object = { emptyDir: {} }): { container: object; volumes: readonly object[] } {
  const container = {
    name: 'istio-proxy',
    image: imageName('proxy'),
    args: ['proxy', 'sidecar'],
    env: proxyVariables({ binaryPath: '/envoy', customConfigFile: IDLE }),
    volumeMounts: Object.entries(VOLUMES).map(([name, mountPath]) => ({ name, mountPath })),
  };
  const volumes = [
    { name: 'istio-token', projected: { sources: [{ serviceAccountToken: TOKEN }] } },
    { name: 'istiod-ca-cert', configMap: { name: 'istio-ca-root-cert' } },
    { name: 'workload-socket', ...socket },
    { name: 'istio-data', emptyDir: {} },
    { name: 'istio-tmp', emptyDir: {} },
    { name: 'istio-envoy', configMap: { name: 'istio-envoy' } },
  ];
  return { container, volumes };
}

/** The configuration of an Envoy that does nothing, which `injectedProxy` mounts, and the flags to run it. */
export const idleEnvoy = (namespace: string): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'istio-envoy', namespace },
  data: { 'envoy.json': '{}' },
});
export const IDLE_FLAGS = ['-c', IDLE, '--disable-hot-restart', '--log-level', 'warning'];

/** A server of SDS on a socket of the node, with the identity of a ServiceAccount: Istio's agent. */
export async function installNodeSocket(
  cluster: Cluster,
  { namespace, account }: { readonly namespace: string; readonly account: string },
): Promise<void> {
  await cluster.node.run('mkdir', ['-p', NODE_SOCKETS]);
  await cluster.node.run('ln', ['-sf', 'socket', `${NODE_SOCKETS}/api.sock`]);
  const { container, volumes } = injectedProxy({ hostPath: { path: NODE_SOCKETS } });
  await apply(cluster, deployment('node-socket', namespace, container, { serviceAccountName: account, volumes }));
  await rolledOut(cluster, namespace, 'node-socket');
}
