import { fields, type KubeObject, text } from '../../../mesh/kube-object.ts';

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
  /** The name of a TLSContext, even if it is `"true"`; the boolean of v2 means TLS without a certificate. */
  readonly tls: string | true | undefined;
  readonly prefix: string;
  /** The replacement of the prefix on the way to the upstream. */
  readonly rewrite: string;
  readonly hostRewrite: string | undefined;
  readonly resolver: string | undefined;
  readonly loadBalancer: LoadBalancer | undefined;
  /** Fields for which Emissary gives the cluster its own name: the tag, and the limits. */
  readonly clusterTag: string | undefined;
  readonly circuitBreakers: unknown;
}

export interface LoadBalancer {
  readonly policy: string;
  readonly header: string | undefined;
  readonly cookie: string | undefined;
  readonly sourceIp: boolean;
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
  return {
    ambassadorId: spec.ambassador_id,
    service: text(spec.service) ?? '',
    tls: spec.tls === true ? true : text(spec.tls),
    prefix: text(spec.prefix) ?? '/',
    rewrite: typeof spec.rewrite === 'string' ? spec.rewrite || text(spec.prefix) || '/' : '/',
    hostRewrite: text(spec.host_rewrite),
    resolver: text(spec.resolver),
    loadBalancer: loadBalancer(spec.load_balancer),
    clusterTag: text(spec.cluster_tag),
    circuitBreakers: spec.circuit_breakers,
  };
}

export function loadBalancer(value: unknown): LoadBalancer | undefined {
  const { policy, header, cookie, source_ip } = fields(value);
  const named = text(policy);
  if (named === undefined) return undefined;
  return { policy: named, header: text(header), cookie: text(fields(cookie).name), sourceIp: source_ip !== undefined };
}
