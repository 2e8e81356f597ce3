import { credentials } from '@grpc/grpc-js';
import { decode, firstAnswer } from '../servers/grpc-call.ts';

/** How a sidecar connects to a port of a Service, as istiod tells it. */
export interface SidecarCluster {
  /** The host of the Service. */
  readonly host: string;
  /** TLS for every endpoint, whether it has a sidecar or not. */
  readonly tls: boolean;
  /** Names of the certificates that it presents by that TLS; one that comes with the cluster has none: `inline`. */
  readonly certificates: readonly string[];
}

const METHOD = {
  file: 'ads.proto',
  service: 'envoy.service.discovery.v3.AggregatedDiscoveryService',
  name: 'StreamAggregatedResources',
};
const CLUSTERS = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';

/** What istiod sends to the sidecar of a pod of this namespace that asks for its clusters. */
export async function sidecarClusters(address: string, namespace: string): Promise<readonly SidecarCluster[]> {
  const node = { id: `sidecar~127.0.0.1~asking.${namespace}~${namespace}.svc.cluster.local`, cluster: 'asking' };
  const target = { address, credentials: credentials.createInsecure() };
  const { resources } = await firstAnswer(target, METHOD, { node, type_url: CLUSTERS });
  return resources.flatMap(({ value }: { value: Buffer }) => {
    const { name, transport_socket } = decode('sidecar.proto', 'meshcert.test.sidecar.Cluster', value);
    const [, host] = /^outbound\|\d+\|.*\|(.+)$/.exec(name) ?? [];
    if (host === undefined) return [];
    const config = transport_socket?.typed_config?.value;
    const context = config && decode('sidecar.proto', 'meshcert.test.sidecar.UpstreamTlsContext', config);
    const { tls_certificates: inline = [], tls_certificate_sds_secret_configs: named = [] } =
      context?.common_tls_context ?? {};
    return {
      host,
      tls: Boolean(transport_socket),
      certificates: [...named.map(({ name: one }: { name: string }) => one), ...inline.map(() => 'inline')],
    };
  });
}
