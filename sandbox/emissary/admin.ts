import type { ContextReading, PemFile } from '../../src/gateway/emissary/reading.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import type { ClusterConfig, Configuration, EnvoyTls } from './configuration.ts';

/**
 * The part of `GET :8877/ambassador/v0/diag/?json=true` that is about TLS. A cluster of a route has the files with which
 * it was made, which may be older than those of its TLSContext.
 */
export function diagnostics({ errors, contexts, clusters, routes }: Configuration): object {
  const routed = new Set(routes.map(({ cluster }) => cluster));
  const info = [...clusters.values()]
    .filter(({ name }) => routed.has(name))
    .map((cluster) => {
      const { name, tls } = cluster;
      const context = tls && { tls_context: { secret_info: filePaths(tls) } };
      return [name, { name, envoy_name: name, stats_name: statsName(cluster), ...context }];
    });
  return { errors, tlscontexts: contexts.map(contextInfo), cluster_info: Object.fromEntries(info), groups: {} };
}

function contextInfo({ name, namespace, spec, certificate, key, ca }: ContextReading): object {
  return {
    name,
    namespace,
    hosts: spec.hosts,
    secret_info: {
      ...(spec.secret ? { secret: spec.secret } : {}),
      ...(spec.caSecret ? { ca_secret: spec.caSecret } : {}),
      ...filePaths({ certificate, key, ca }),
    },
  };
}

const filePaths = ({ certificate, key, ca }: Pick<EnvoyTls, 'certificate' | 'key' | 'ca'>): object => ({
  ...(certificate ? { cert_chain_file: certificate.path } : {}),
  ...(key ? { private_key_file: key.path } : {}),
  ...(ca ? { cacert_chain_file: ca.path } : {}),
});

/** Emissary has Envoy count under the text of the service, not under the name of the cluster. */
const statsName = ({ host, port }: ClusterConfig): string => `${host}:${port}`.replace(/\W/g, '_');

/** Of `GET :8877/metrics`, what Envoy says about the certificates of its clusters; it does since 1.37. */
export function metrics(clusters: Iterable<ClusterConfig>): string {
  const name = 'envoy_cluster_ssl_certificate_expiration_unix_time_seconds';
  const lines = [...clusters].flatMap((cluster) => {
    const gauge = (certificate: string, file: PemFile | undefined) => {
      const [first] = file?.pem === undefined ? [] : parseCertificates(file.pem);
      const labels = `envoy_tls_certificate="${certificate}",envoy_cluster_name="${statsName(cluster)}"`;
      return first ? [`${name}{${labels}} ${Math.floor(first.notAfter / 1000)}`] : [];
    };
    return [
      ...gauge('unnamed_ca_cert_e3b0c442', cluster.tls?.ca),
      ...gauge('unnamed_cert_e3b0c442', cluster.tls?.certificate),
      `envoy_cluster_warming_state{envoy_cluster_name="${statsName(cluster)}"} 0`,
    ];
  });
  return [`# TYPE ${name} gauge`, ...lines, ''].join('\n');
}

/**
 * The answer of Envoy's admin interface to `GET /certs`: the loaded certificates, which may differ from the published
 * ones.
 */
export function certs(clusters: Iterable<ClusterConfig>, now: number): object {
  const seen = new Map<string, object>();
  for (const { tls } of clusters) {
    if (!tls) continue;
    const { certificate, ca } = tls;
    seen.set(`${certificate?.path} ${ca?.path}`, {
      ca_cert: describeAll(ca, now),
      cert_chain: describeAll(certificate, now),
    });
  }
  return { certificates: [...seen.values()] };
}

const DAY = 86_400_000;

const describeAll = (file: PemFile | undefined, now: number): object[] =>
  file?.pem === undefined ? [] : parseCertificates(file.pem).map((one) => describe(one, file.path, now));

function describe(certificate: Certificate, path: string, now: number): object {
  const { names, serial, notBefore, notAfter } = certificate;
  return {
    path,
    serial_number: serial.toLowerCase(),
    subject_alt_names: [...names.uris.map((uri) => ({ uri })), ...names.dns.map((dns) => ({ dns }))],
    days_until_expiration: String(Math.max(0, Math.floor((notAfter - now) / DAY))),
    valid_from: new Date(notBefore).toISOString().replace('.000Z', 'Z'),
    expiration_time: new Date(notAfter).toISOString().replace('.000Z', 'Z'),
  };
}
