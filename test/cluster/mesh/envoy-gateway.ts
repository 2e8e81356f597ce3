import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { eventually } from '../../peers/parts/eventually.ts';
import { CONTROLLER_NAME, GATEWAY_CLASS, MODULE, NAMESPACE } from '../../peers/servers/envoy-gateway.ts';
import { goModuleSource } from '../../peers/servers/go-module.ts';
import type { Cluster } from '../cluster.ts';
import { imageName } from '../images.ts';
import type { World } from '../world.ts';
import { apply, rolledOut } from './objects.ts';

/** Envoy Gateway from its own chart, with its definitions and a GatewayClass, and with images of the tests. */
export async function installEnvoyGateway({ cluster, shell }: Pick<World, 'cluster' | 'shell'>): Promise<void> {
  const chart = join(await goModuleSource('envoy-gateway', MODULE), 'charts/gateway-helm');
  // Its release fills in the name of the image.
  const values = (await readFile(join(chart, 'values.tmpl.yaml'), 'utf8'))
    .replace(/\$\{GatewayImage\}/g, imageName('envoy-gateway'))
    .replace(/\$\{GatewayImagePullPolicy\}/g, 'IfNotPresent');
  await writeFile(join(shell.dir, 'envoy-gateway.yaml'), values);
  await shell.run(`helm install eg ${chart} -n ${NAMESPACE} --create-namespace --wait --timeout=2m \\
    -f envoy-gateway.yaml --set config.envoyGateway.extensionApis.enableBackend=true`);
  await apply(cluster, {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'GatewayClass',
    metadata: { name: GATEWAY_CLASS },
    spec: { controllerName: CONTROLLER_NAME },
  });
}

/** The `spec.provider` of an EnvoyProxy whose Envoys have the image of the tests. */
export const PROVIDER = {
  type: 'Kubernetes',
  kubernetes: { envoyDeployment: { container: { image: imageName('gateway') } } },
};

/** The Envoy that Envoy Gateway runs for a Gateway. */
export interface ManagedProxy {
  /** Leads from this machine to the first listener of the Gateway, by the Service. */
  readonly url: string;
  /** Connections to upstreams, of all clusters that routes lead to. */
  connections(): Promise<{ readonly made: number; readonly failed: number; readonly byTls: number }>;
  /** How many clusters it has changed, and how many of them are not in use yet. */
  changes(): Promise<{ readonly all: number; readonly pending: number }>;
  /** What a restart or another version of the Deployment would change. */
  life(): Promise<string>;
  /** The lines of its access log about requests that were not answered by 200. */
  failures(): Promise<readonly string[]>;
}

/** Waits until Envoy Gateway has made the Envoy for the Gateway, and until that is ready. */
export async function managedProxy(
  cluster: Cluster,
  gateway: { readonly namespace: string; readonly name: string },
): Promise<ManagedProxy> {
  const labels = ['name', 'namespace'] as const;
  const selector = labels.map((key) => `gateway.envoyproxy.io/owning-gateway-${key}=${gateway[key]}`).join();
  const get = (what: string, path: string): Promise<string> =>
    cluster.kubectl(['-n', NAMESPACE, 'get', what, '-l', selector, '-o', `jsonpath=${path}`]);
  const name = (): Promise<string> => get('deployments', '{.items[*].metadata.name}');
  await eventually(`an Envoy for ${gateway.namespace}/${gateway.name}`, async () => (await name()) !== '');
  await rolledOut(cluster, NAMESPACE, await name());
  const address = async (what: string, path: string, port: number) =>
    cluster.port(`${await get(what, `{.items[0].${path}}`)}:${port}`);
  const http = await address('services', 'spec.clusterIP', 80);
  const metrics = await address('pods', 'status.podIP', 19_001);
  const counters = async () => (await fetch(`http://127.0.0.1:${metrics}/stats/prometheus`)).text();
  return {
    url: `http://127.0.0.1:${http}`,
    async connections() {
      const ofRoutes = '_cluster_name="httproute/';
      const all = await counters();
      return {
        // upstream_cx_total counts each connection twice.
        made: sum(all, 'upstream_cx_http1_total', ofRoutes) + sum(all, 'upstream_cx_http2_total', ofRoutes),
        failed: sum(all, 'upstream_cx_connect_fail', ofRoutes),
        byTls: sum(all, 'ssl_handshake', ofRoutes),
      };
    },
    async changes() {
      const all = await counters();
      return { all: sum(all, 'manager_cluster_modified'), pending: sum(all, 'manager_warming_clusters') };
    },
    life: async () =>
      [
        await get('deployments', '{.items[*].metadata.generation}'),
        await get('pods', '{range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{end}'),
      ].join('; '),
    async failures() {
      const log = await cluster.kubectl(['-n', NAMESPACE, 'logs', '-l', selector, '-c', 'envoy', '--tail=-1']);
      return log
        .split('\n')
        .filter((line) => line.includes('"response_code"') && !line.includes('"response_code":200,'));
    },
  };
}

/** The sum of a counter about clusters over all of its labels, or over those that contain a text. */
function sum(metrics: string, counter: string, labels = ''): number {
  return metrics
    .split('\n')
    .filter((line) => line.startsWith(`envoy_cluster_${counter}{`) && line.includes(labels))
    .reduce((total, line) => total + Number(line.split(' ').at(-1)), 0);
}
