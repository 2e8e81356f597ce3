import { fastRotation } from '../../peers/servers/istiod.ts';
import type { Cluster } from '../cluster.ts';
import { imageName } from '../images.ts';
import { apply, deployment, rolledOut, service, serviceAccount } from './objects.ts';

const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });
const value = (name: string, text: string) => ({ name, value: text });
const variables = (values: Readonly<Record<string, string>>) => Object.entries(values).map(([k, v]) => value(k, v));

/** istiod as its chart runs it except for the image, with leaves of a minute and a root that is renewed every two. */
export async function installIstiod(cluster: Cluster): Promise<void> {
  const namespace = 'istio-system';
  await cluster.ensureNamespace(namespace);
  await apply(
    cluster,
    serviceAccount('istiod', namespace),
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'istiod' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
      subjects: [{ kind: 'ServiceAccount', name: 'istiod', namespace }],
    },
    service('istiod', namespace, [{ name: 'https-dns', port: 15012 }]),
    deployment(
      'istiod',
      namespace,
      {
        image: imageName('istiod'),
        args: ['discovery', '--domain=cluster.local', '--monitoringAddr=:15014'],
        env: [
          field('POD_NAME', 'metadata.name'),
          field('POD_NAMESPACE', 'metadata.namespace'),
          ...variables({ PILOT_CERT_PROVIDER: 'istiod', CLOUD_PLATFORM: 'none', REVISION: 'default' }),
          ...variables({ CLUSTER_ID: 'Kubernetes', ...fastRotation }),
        ],
        readinessProbe: { httpGet: { path: '/ready', port: 8080 }, periodSeconds: 1 },
        // istiod writes below its working directory.
        workingDir: '/tmp',
        volumeMounts: [{ name: 'tmp', mountPath: '/tmp' }],
      },
      { serviceAccountName: 'istiod', volumes: [{ name: 'tmp', emptyDir: {} }] },
    ),
  );
  await rolledOut(cluster, namespace, 'istiod');
}

const type = (message: string): string => `type.googleapis.com/envoy.extensions.${message}`;
/** Where Istio's agent serves SDS, in a pod. */
export const SOCKETS = '/var/run/secrets/workload-spiffe-uds';
/** The projected token that Istio's agent sends to istiod. */
export const TOKEN = { path: 'istio-token', audience: 'istio-ca', expirationSeconds: 3600 };

/**
 * A workload of the mesh in a pod: Istio's agent, and Envoy with the certificates that it serves. It answers HTTP over
 * mTLS on port 8443, only to the client with this SPIFFE ID.
 */
export async function installWorkload(
  cluster: Cluster,
  workload: {
    /** Of its ServiceAccount, too. */
    readonly name: string;
    readonly namespace: string;
    /** Of a Service of its name; without one, its pod joins those behind another Service. */
    readonly service: { readonly port: number } | { readonly name: string };
    readonly client: string;
  },
): Promise<void> {
  const { name, namespace, service: of, client } = workload;
  await cluster.ensureNamespace(namespace);
  await apply(
    cluster,
    serviceAccount(name, namespace),
    ...('port' in of ? [service(name, namespace, [{ name: 'http', port: of.port, targetPort: 8443 }])] : []),
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: `${name}-envoy`, namespace },
      data: { 'envoy.json': JSON.stringify(bootstrap(name, client)) },
    },
    proxyDeployment(name, namespace, 'name' in of ? of.name : name),
  );
  await rolledOut(cluster, namespace, name);
}

function proxyDeployment(name: string, namespace: string, behind: string): object {
  const mounts = {
    tokens: '/var/run/secrets/tokens',
    root: '/var/run/secrets/istio',
    sockets: SOCKETS,
    envoy: '/etc/proxy',
    state: '/etc/istio/proxy',
    tmp: '/tmp',
  };
  return deployment(
    name,
    namespace,
    {
      name: 'istio-proxy',
      image: imageName('proxy'),
      args: ['proxy', 'sidecar'],
      env: proxyVariables({ binaryPath: '/envoy', customConfigFile: '/etc/proxy/envoy.json' }),
      readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 },
      volumeMounts: Object.entries(mounts).map(([volume, mountPath]) => ({ name: volume, mountPath })),
    },
    {
      serviceAccountName: name,
      volumes: [
        { name: 'tokens', projected: { sources: [{ serviceAccountToken: TOKEN }] } },
        { name: 'root', configMap: { name: 'istio-ca-root-cert' } },
        { name: 'envoy', configMap: { name: `${name}-envoy` } },
        ...['sockets', 'state', 'tmp'].map((volume) => ({ name: volume, emptyDir: {} })),
      ],
    },
    behind,
  );
}

/** The environment that Istio's injector gives its agent. */
export function proxyVariables(proxyConfig: Readonly<Record<string, unknown>>): object[] {
  const istiod = 'istiod.istio-system.svc:15012';
  const config = { statusPort: 15020, discoveryAddress: istiod, terminationDrainDuration: '0s', ...proxyConfig };
  return [
    field('POD_NAME', 'metadata.name'),
    field('POD_NAMESPACE', 'metadata.namespace'),
    field('INSTANCE_IP', 'status.podIP'),
    field('SERVICE_ACCOUNT', 'spec.serviceAccountName'),
    ...variables({
      TRUST_DOMAIN: 'cluster.local',
      CLOUD_PLATFORM: 'none',
      CA_ADDR: istiod,
      PILOT_CERT_PROVIDER: 'istiod',
      ISTIO_META_CLUSTER_ID: 'Kubernetes',
      SECRET_TTL: '60s',
      ECC_SIGNATURE_ALGORITHM: 'ECDSA',
      PROXY_CONFIG: JSON.stringify(config),
    }),
  ];
}

function bootstrap(name: string, client: string): object {
  const source = {
    resource_api_version: 'V3',
    api_config_source: {
      api_type: 'GRPC',
      transport_api_version: 'V3',
      grpc_services: [{ envoy_grpc: { cluster_name: 'sds' } }],
    },
  };
  const http2 = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  return {
    node: { id: name, cluster: name },
    static_resources: {
      clusters: [
        {
          name: 'sds',
          type: 'STATIC',
          typed_extension_protocol_options: {
            [http2]: {
              '@type': `type.googleapis.com/${http2}`,
              explicit_http_config: { http2_protocol_options: {} },
            },
          },
          load_assignment: {
            cluster_name: 'sds',
            endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: `${SOCKETS}/socket` } } } }] }],
          },
        },
      ],
      listeners: [
        {
          name: 'mtls',
          address: { socket_address: { address: '0.0.0.0', port_value: 8443 } },
          filter_chains: [
            {
              transport_socket: {
                name: 'envoy.transport_sockets.tls',
                typed_config: {
                  '@type': type('transport_sockets.tls.v3.DownstreamTlsContext'),
                  require_client_certificate: true,
                  common_tls_context: {
                    alpn_protocols: ['h2', 'http/1.1'],
                    tls_certificate_sds_secret_configs: [{ name: 'default', sds_config: source }],
                    combined_validation_context: {
                      default_validation_context: {
                        match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: client } }],
                      },
                      validation_context_sds_secret_config: { name: 'ROOTCA', sds_config: source },
                    },
                  },
                },
              },
              filters: [answer(name)],
            },
          ],
        },
      ],
    },
  };
}

/** Headers of an answer of a workload: the SPIFFE ID of its client, and the SHA-256 of the client's certificate. */
export const CLIENT_HEADERS = { id: 'x-client-id', fingerprint: 'x-client-fingerprint' } as const;

/** Answers every request with the name of the workload, and says who asked. */
const answer = (name: string): object => ({
  name: 'envoy.filters.network.http_connection_manager',
  typed_config: {
    '@type': type('filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: 'mtls',
    http_filters: [
      { name: 'envoy.filters.http.router', typed_config: { '@type': type('filters.http.router.v3.Router') } },
    ],
    route_config: {
      response_headers_to_add: [
        { header: { key: CLIENT_HEADERS.id, value: '%DOWNSTREAM_PEER_URI_SAN%' } },
        { header: { key: CLIENT_HEADERS.fingerprint, value: '%DOWNSTREAM_PEER_FINGERPRINT_256%' } },
      ],
      virtual_hosts: [
        {
          name: 'all',
          domains: ['*'],
          routes: [{ match: { prefix: '/' }, direct_response: { status: 200, body: { inline_string: name } } }],
        },
      ],
    },
  },
});
