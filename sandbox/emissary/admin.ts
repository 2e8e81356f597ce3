import type { ContextReading, PemFile } from '../../src/gateway/emissary/reading/context.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import type { ClusterConfig, Configuration } from './configuration.ts';

/** The part of `GET :8877/ambassador/v0/diag/?json=true` that is about TLS. */
export function diagnostics(configuration: Configuration): object {
  return { errors: configuration.errors, tlscontexts: configuration.contexts.map(contextInfo) };
}

function contextInfo({ name, namespace, spec, certificate, key, ca }: ContextReading): object {
  return {
    name,
    namespace,
    hosts: spec.hosts,
    secret_info: {
      ...(spec.secret ? { secret: spec.secret } : {}),
      ...(spec.caSecret ? { ca_secret: spec.caSecret } : {}),
      ...(certificate ? { cert_chain_file: certificate.path } : {}),
      ...(key ? { private_key_file: key.path } : {}),
      ...(ca ? { cacert_chain_file: ca.path } : {}),
    },
  };
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
