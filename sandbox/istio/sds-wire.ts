import { messageType } from '../../src/grpc/messages.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';

const TLS = 'envoy.extensions.transport_sockets.tls.v3';

export const SDS_SERVICE = 'envoy.service.secret.v3.SecretDiscoveryService';
export const SECRET_TYPE = `type.googleapis.com/${TLS}.Secret`;

export interface DiscoveryRequest {
  readonly version_info: string;
  readonly node: { readonly id: string; readonly metadata: Metadata | null } | null;
  readonly resource_names: readonly string[];
  readonly type_url: string;
  readonly response_nonce: string;
  readonly error_detail: { readonly code: number; readonly message: string } | null;
}

interface Metadata {
  readonly fields: Readonly<Record<string, { readonly kind?: string; readonly boolValue?: boolean } | undefined>>;
}

export interface SdsResource {
  readonly type_url: string;
  readonly value: Buffer;
}

const inline = (pem: string) => ({ inline_bytes: Buffer.from(pem) });

export function secretResource(secret: object): SdsResource {
  return { type_url: SECRET_TYPE, value: messageType(`${TLS}.Secret`).encode(secret) };
}

export function certificateResource(name: string, chain: readonly Certificate[], keyPem: string): SdsResource {
  const certificate_chain = inline(formatCertificates(chain));
  return secretResource({ name, tls_certificate: { certificate_chain, private_key: inline(keyPem) } });
}

export function rootsResource(name: string, roots: readonly Certificate[]): SdsResource {
  return secretResource({ name, validation_context: { trusted_ca: inline(formatCertificates(roots)) } });
}

/** SPIRE's default: an Envoy validator that holds one bundle for each trust domain. */
export function validatorResource(name: string, bundles: ReadonlyMap<string, readonly Certificate[]>): SdsResource {
  const type = `${TLS}.SPIFFECertValidatorConfig`;
  const trust_domains = [...bundles].map(([domain, roots]) => ({
    name: domain,
    trust_bundle: inline(formatCertificates(roots)),
  }));
  const typed_config = { type_url: `type.googleapis.com/${type}`, value: messageType(type).encode({ trust_domains }) };
  const custom_validator_config = { name: 'envoy.tls.cert_validator.spiffe', typed_config };
  return secretResource({ name, validation_context: { custom_validator_config } });
}
