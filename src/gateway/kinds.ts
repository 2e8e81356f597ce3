import type { KubeObject } from '../core/object.ts';

/** The fields of a TLSContext that decide how the gateway speaks to an upstream. */
export interface ContextSpec {
  readonly ambassadorId: unknown;
  readonly hosts: readonly string[];
  readonly secret: string | undefined;
  readonly caSecret: string | undefined;
  readonly crlSecret: string | undefined;
  readonly certChainFile: string | undefined;
  readonly privateKeyFile: string | undefined;
  readonly caCertChainFile: string | undefined;
  readonly alpnProtocols: string | undefined;
  readonly sni: string | undefined;
  readonly minTlsVersion: string | undefined;
  readonly maxTlsVersion: string | undefined;
  readonly secretNamespacing: boolean | undefined;
  readonly certRequired: boolean | undefined;
  readonly redirectCleartextFrom: unknown;
}

/** Of a Mapping or a TCPMapping. */
export interface MappingSpec {
  readonly ambassadorId: unknown;
  readonly service: string;
  /** `true` stands for TLS without a certificate. */
  readonly tls: string | true | undefined;
  readonly prefix: string;
  /** What the prefix is replaced by on the way to the upstream. */
  readonly rewrite: string;
  readonly hostRewrite: string | undefined;
  readonly resolver: string | undefined;
  readonly loadBalancerPolicy: string | undefined;
}

export function contextSpec(object: KubeObject): ContextSpec {
  const spec = fields(object.spec);
  return {
    ambassadorId: spec.ambassador_id,
    hosts: Array.isArray(spec.hosts) ? spec.hosts.map(String) : [],
    secret: text(spec.secret),
    caSecret: text(spec.ca_secret),
    crlSecret: text(spec.crl_secret),
    certChainFile: text(spec.cert_chain_file),
    privateKeyFile: text(spec.private_key_file),
    caCertChainFile: text(spec.cacert_chain_file),
    alpnProtocols: text(spec.alpn_protocols),
    sni: text(spec.sni),
    minTlsVersion: text(spec.min_tls_version),
    maxTlsVersion: text(spec.max_tls_version),
    secretNamespacing: typeof spec.secret_namespacing === 'boolean' ? spec.secret_namespacing : undefined,
    certRequired: typeof spec.cert_required === 'boolean' ? spec.cert_required : undefined,
    redirectCleartextFrom: spec.redirect_cleartext_from,
  };
}

export function mappingSpec(object: KubeObject): MappingSpec {
  const spec = fields(object.spec);
  const tls = spec.tls === 'true' ? true : spec.tls;
  return {
    ambassadorId: spec.ambassador_id,
    service: text(spec.service) ?? '',
    tls: tls === true ? true : text(tls),
    prefix: text(spec.prefix) ?? '/',
    rewrite: typeof spec.rewrite === 'string' ? spec.rewrite || text(spec.prefix) || '/' : '/',
    hostRewrite: text(spec.host_rewrite),
    resolver: text(spec.resolver),
    loadBalancerPolicy: text(fields(spec.load_balancer).policy),
  };
}

/** An object's map of fields, or an empty one: what users write is never trusted to have a shape. */
export function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

export function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
