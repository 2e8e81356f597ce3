import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Identity } from '../../../src/mesh/identity.ts';
import { type Certificate, formatCertificates } from '../../../src/pki/certificate.ts';
import type { Sidecar } from '../../doctor/traps.ts';
import { type EnvoyObject, startEnvoy } from '../servers/envoy.ts';
import { plainCluster } from '../servers/envoy-config.ts';
import { freePorts } from '../servers/loopback.ts';
import { scratchDir } from '../servers/process.ts';

const ISTIO_PROTOCOLS = ['istio', 'istio-peer-exchange', 'istio-http/1.0', 'istio-http/1.1', 'istio-h2'];
const type = (message: string): string => `type.googleapis.com/envoy.extensions.${message}`;

/** A real Envoy in front of an application, with the filter chains that istiod gives the sidecar of an HTTP port. */
export async function startEnvoySidecar(identity: Identity, roots: readonly Certificate[]): Promise<Sidecar> {
  const dir = scratchDir('sidecar');
  const files = { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem'), roots: join(dir, 'roots.pem') };
  await writeFile(files.cert, formatCertificates(identity.chain));
  await writeFile(files.key, identity.key.toPem(), { mode: 0o600 });
  await writeFile(files.roots, formatCertificates(roots));
  // Answers like our other upstreams: the name in the client's certificate, null without TLS.
  const app = createServer((request, response) => {
    const header = request.headers['x-forwarded-client-cert'];
    const uri = /URI=([^;,]+)/.exec(String(header))?.[1];
    response.end(JSON.stringify({ peer: header === undefined ? null : uri }));
  });
  await new Promise<void>((resolve) => app.listen(0, '127.0.0.1', resolve));
  const application = { port: (app.address() as AddressInfo).port };

  const ports = await freePorts('strict', 'permissive');
  const mtls = { ...chain('mtls'), transport_socket: transportSocket(files) };
  const tls = { transport_protocol: 'tls' };
  const envoy = await startEnvoy({
    listeners: [
      listener(ports.strict, [{ ...mtls, filter_chain_match: tls }]),
      listener(ports.permissive, [
        { ...mtls, filter_chain_match: { ...tls, application_protocols: ISTIO_PROTOCOLS } },
        { ...chain('plaintext'), filter_chain_match: { transport_protocol: 'raw_buffer' } },
      ]),
    ],
    clusters: [plainCluster('application', application.port)],
  });
  return {
    strict: { port: ports.strict },
    permissive: { port: ports.permissive },
    application,
    async [Symbol.asyncDispose]() {
      await envoy.stop();
      app.closeAllConnections();
      await new Promise((resolve) => app.close(resolve));
    },
  };
}

const listener = (port: number, filter_chains: readonly EnvoyObject[]): EnvoyObject => ({
  name: `inbound-${port}`,
  address: { socket_address: { address: '127.0.0.1', port_value: port } },
  listener_filters: [
    {
      name: 'envoy.filters.listener.tls_inspector',
      typed_config: { '@type': type('filters.listener.tls_inspector.v3.TlsInspector') },
    },
  ],
  filter_chains,
});

const transportSocket = (files: Readonly<Record<'cert' | 'key' | 'roots', string>>): EnvoyObject => ({
  name: 'envoy.transport_sockets.tls',
  typed_config: {
    '@type': type('transport_sockets.tls.v3.DownstreamTlsContext'),
    require_client_certificate: true,
    common_tls_context: {
      alpn_protocols: ['h2', 'http/1.1'],
      tls_certificates: [{ certificate_chain: { filename: files.cert }, private_key: { filename: files.key } }],
      validation_context: { trusted_ca: { filename: files.roots } },
    },
  },
});

const chain = (name: string): EnvoyObject => ({
  name,
  filters: [
    {
      name: 'envoy.filters.network.http_connection_manager',
      typed_config: {
        '@type': type('filters.network.http_connection_manager.v3.HttpConnectionManager'),
        stat_prefix: name,
        forward_client_cert_details: 'SANITIZE_SET',
        set_current_client_cert_details: { uri: true },
        http_filters: [
          {
            name: 'envoy.filters.http.router',
            typed_config: { '@type': type('filters.http.router.v3.Router') },
          },
        ],
        route_config: {
          validate_clusters: false,
          virtual_hosts: [
            {
              name: 'all',
              domains: ['*'],
              routes: [{ match: { prefix: '/' }, route: { cluster: 'application' } }],
            },
          ],
        },
      },
    },
  ],
});
