import type { EnvoyObject } from './envoy.ts';

/** An HTTP listener that sends everything to one cluster, which CDS may add later. */
export const httpListener = (port: number, cluster: string): EnvoyObject => listener(port, { cluster });

/** An HTTP listener that sends a request to the cluster that its header names, so that one serves many. */
export const headerListener = (port: number, header: string, address = '127.0.0.1'): EnvoyObject =>
  listener(port, { cluster_header: header }, address);

function listener(port: number, route: EnvoyObject, address = '127.0.0.1'): EnvoyObject {
  return {
    name: `http-${port}`,
    address: { socket_address: { address, port_value: port } },
    filter_chains: [
      {
        filters: [
          {
            name: 'envoy.filters.network.http_connection_manager',
            typed_config: {
              '@type': type('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
              stat_prefix: 'ingress',
              http_filters: [
                {
                  name: 'envoy.filters.http.router',
                  typed_config: { '@type': type('extensions.filters.http.router.v3.Router') },
                },
              ],
              route_config: {
                name: 'all',
                validate_clusters: false,
                virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route }] }],
              },
            },
          },
        ],
      },
    ],
  };
}

export interface MtlsCluster {
  readonly name: string;
  readonly port: number;
  /** Paths. Emissary names these files by content, so a new pair is a new path and a new cluster. */
  readonly certFile: string;
  readonly keyFile: string;
  readonly caFile: string;
  readonly sni?: string;
  readonly alpn?: readonly string[];
  readonly minTls?: 'TLSv1_2' | 'TLSv1_3';
  /** Envoy's own default for upstreams ends at TLS 1.2. */
  readonly maxTls?: 'TLSv1_2' | 'TLSv1_3';
  /** Exact URI SAN that the upstream must have; Emissary cannot configure one. */
  readonly uriSan?: string;
}

/** A cluster of one loopback endpoint, originating mTLS as a TLSContext makes Emissary's Envoy do it. */
export function mtlsCluster(options: MtlsCluster): EnvoyObject {
  const { name, sni, alpn, minTls, maxTls, uriSan } = options;
  return {
    ...plainCluster(name, options.port),
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': type('extensions.transport_sockets.tls.v3.UpstreamTlsContext'),
        ...(sni ? { sni } : {}),
        common_tls_context: {
          tls_certificates: [
            { certificate_chain: { filename: options.certFile }, private_key: { filename: options.keyFile } },
          ],
          validation_context: {
            trusted_ca: { filename: options.caFile },
            ...(uriSan ? { match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: uriSan } }] } : {}),
          },
          ...(alpn ? { alpn_protocols: alpn } : {}),
          tls_params: {
            ...(minTls ? { tls_minimum_protocol_version: minTls } : {}),
            ...(maxTls ? { tls_maximum_protocol_version: maxTls } : {}),
          },
        },
      },
    },
  };
}

export function plainCluster(name: string, port: number): EnvoyObject {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '3s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: loopback(port) } }] }],
    },
  };
}

function loopback(port: number): EnvoyObject {
  return { socket_address: { address: '127.0.0.1', port_value: port } };
}

function type(message: string): string {
  return `type.googleapis.com/envoy.${message}`;
}
