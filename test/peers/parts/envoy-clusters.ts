import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClusterConfig } from '../../../sandbox/emissary/configuration.ts';
import type { PemFile, TlsPart } from '../../../src/gateway/emissary/reading.ts';
import type { EnvoyObject } from '../servers/envoy.ts';
import { plainCluster } from '../servers/envoy-config.ts';

/** The upstreams run in the process of the test, which a busy machine has stalled for longer than Emissary's 3 s. */
const CONNECT_TIMEOUT = '15s';

/**
 * A cluster as Emissary writes it for Envoy, with one endpoint on a loopback port; its files are written below `dir`.
 * `freshEvery`: a connection carries this many requests and idles half a second at most, so that handshakes never stop.
 */
export async function clusterOf(
  { name, tls }: ClusterConfig,
  port: number,
  dir: string,
  freshEvery?: number,
): Promise<EnvoyObject> {
  const plain = {
    ...plainCluster(name, port),
    connect_timeout: CONNECT_TIMEOUT,
    ...(freshEvery ? shortConnections(freshEvery) : {}),
  };
  if (!tls) return plain;
  const file = (pem: PemFile | undefined) => (pem?.pem === undefined ? undefined : writePem(dir, pem.path, pem.pem));
  const [certificate, key, ca, crl] = await Promise.all([tls.certificate, tls.key, tls.ca, tls.crl].map(file));
  const source = (part: TlsPart, filename: string | undefined) =>
    filename || tls.withoutFile.includes(part) ? { [part]: { filename: filename ?? null } } : {};
  const chain = source('certificate_chain', certificate);
  const validation = { ...source('trusted_ca', ca), ...source('crl', crl) };
  const version = (text: string | undefined) => text && `TLS${text.replace('.', '_')}`;
  return {
    ...plain,
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
        ...(tls.sni ? { sni: tls.sni } : {}),
        // Emissary writes it into every context, although an upstream's has no such field.
        ...(tls.certRequired === undefined ? {} : { require_client_certificate: tls.certRequired }),
        common_tls_context: {
          ...(key ? { tls_certificates: [{ ...chain, private_key: { filename: key } }] } : {}),
          ...(Object.keys(validation).length > 0 ? { validation_context: validation } : {}),
          ...(tls.alpn ? { alpn_protocols: [tls.alpn] } : {}),
          tls_params: {
            ...(tls.min ? { tls_minimum_protocol_version: version(tls.min) } : {}),
            ...(tls.max ? { tls_maximum_protocol_version: version(tls.max) } : {}),
          },
        },
      },
    },
  };
}

/** A cluster as Emissary writes it, with the host that the Mapping names, resolved by DNS. */
export async function clusterByName(config: ClusterConfig, dir: string): Promise<EnvoyObject> {
  const { name, host, port } = config;
  const address = { socket_address: { address: host, port_value: port } };
  return {
    ...(await clusterOf(config, port, dir)),
    type: 'STRICT_DNS',
    dns_lookup_family: 'V4_ONLY',
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] },
  };
}

/** Writes what the gateway reads at `path` below `dir`; returns the new path. */
export async function writePem(dir: string, path: string, pem: string): Promise<string> {
  const file = join(dir, path.replaceAll('/', '_'));
  await mkdir(dir, { recursive: true });
  await writeFile(file, pem);
  return file;
}

function shortConnections(requests: number): EnvoyObject {
  const name = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  return {
    typed_extension_protocol_options: {
      [name]: {
        '@type': `type.googleapis.com/${name}`,
        explicit_http_config: { http_protocol_options: {} },
        common_http_protocol_options: { idle_timeout: '0.5s', max_requests_per_connection: requests },
      },
    },
  };
}
