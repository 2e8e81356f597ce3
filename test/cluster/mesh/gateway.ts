import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ambassadorDefinitions } from '../../../sandbox/kube/ambassador.ts';
import { connect } from '../../../src/kube/client.ts';
import { clusterByName } from '../../peers/parts/envoy-clusters.ts';
import { type Configurer, configureEnvoy } from '../../peers/parts/envoy-gateway.ts';
import { type EnvoyControl, envoyFlags, prepareEnvoy } from '../../peers/servers/envoy.ts';
import { headerListener } from '../../peers/servers/envoy-config.ts';
import type { Cluster } from '../cluster.ts';
import { imageName } from '../images.ts';
import { apply, deployment, podAddress, rolledOut, serviceAccount } from './objects.ts';

export const GATEWAY = { namespace: 'emissary', account: 'emissary-ingress' } as const;
export const GATEWAY_ID = `spiffe://cluster.local/ns/${GATEWAY.namespace}/sa/${GATEWAY.account}`;

export interface GatewayPod extends AsyncDisposable {
  /** Leads to the gateway from this machine; the header `x-cluster` picks the upstream. */
  readonly url: string;
  readonly configurer: Configurer;
  readonly stats: EnvoyControl['stats'];
  /** The name of Envoy's cluster for a Mapping's service, once it has a pair and roots. */
  ready(host: string): Promise<string>;
}

/** Emissary's definitions, its namespace and its account, as they are before meshcert is installed. */
export async function prepareGateway(cluster: Cluster): Promise<void> {
  await cluster.ensureNamespace(GATEWAY.namespace);
  await apply(cluster, serviceAccount(GATEWAY.account, GATEWAY.namespace), ...ambassadorDefinitions());
  await cluster.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
}

/** Emissary's Envoy in a pod, configured by Emissary's rules from the objects in the API server. */
export async function installGateway(cluster: Cluster): Promise<GatewayPod> {
  const { namespace, account } = GATEWAY;
  const dir = join(cluster.node.dir, 'gateway');
  await mkdir(dir);
  // Known once the pod is.
  let adminUrl = '';
  const place = { dir, adminUrl: () => adminUrl, log: () => '' };
  const control = await prepareEnvoy(
    place,
    { listeners: [headerListener(8080, 'x-cluster', '0.0.0.0')], clusters: [] },
    { address: '0.0.0.0', port: 8001 },
  );
  await apply(
    cluster,
    deployment(
      account,
      namespace,
      {
        image: imageName('gateway'),
        args: envoyFlags(dir),
        readinessProbe: { httpGet: { path: '/ready', port: 8001 }, periodSeconds: 1 },
        volumeMounts: [{ name: 'configuration', mountPath: dir }],
      },
      { serviceAccountName: account, volumes: [{ name: 'configuration', hostPath: { path: dir } }] },
    ),
  );
  await rolledOut(cluster, namespace, account);
  const address = await podAddress(cluster, namespace, account);
  const admin = await cluster.port(`${address}:8001`);
  const http = await cluster.port(`${address}:8080`);
  adminUrl = `http://127.0.0.1:${admin}`;
  const kube = connect({ kubeconfig: cluster.kubeconfigFile, userAgent: 'gateway' });
  const configurer = configureEnvoy({
    kube,
    envoy: control,
    known: () => true,
    clusterOf: (one) => clusterByName(one, dir),
  });
  return {
    url: `http://127.0.0.1:${http}/`,
    configurer,
    stats: control.stats,
    ready: async (host) => {
      const find = () => [...configurer.configuration.clusters.values()].find((one) => one.host === host);
      await configurer.until(() => find()?.tls?.certificate !== undefined && find()?.tls?.ca !== undefined);
      return find()?.name ?? '';
    },
    async [Symbol.asyncDispose]() {
      await configurer[Symbol.asyncDispose]();
      kube.close();
    },
  };
}
