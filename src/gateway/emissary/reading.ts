import { createHash } from 'node:crypto';
import { containerFields, versionOf } from '../../mesh/cluster.ts';
import { fields, type KubeObject, listOfFields, text } from '../../objects/objects.ts';
import { parseCertificates } from '../../pki/certificate.ts';
import { PrivateKey } from '../../pki/key.ts';
import { decodeData } from '../publication.ts';

/**
 * How requests of one Mapping really reach its upstream. `mtls`: a client certificate is presented and the server's is
 * verified. `tls-unverified`: the server's certificate is not verified, whether or not one is presented. `plaintext`:
 * no TLS.
 */
export interface EffectiveUpstream {
  readonly mode: 'plaintext' | 'tls-unverified' | 'mtls';
  /** Why Emissary drops the whole Mapping; absent: it has a route. */
  readonly dropped: string | undefined;
  /** Emissary's name for it. If two Mappings have the same cluster, the first decides for both. */
  readonly cluster: string;
  readonly host: string;
  readonly port: number;
  /** What finds the endpoints behind the host. */
  readonly resolver: Resolver;
  /** The context that applies; absent when none is named, or the named one cannot be used. */
  readonly context: ContextReading | undefined;
  /** The errors that the gateway's diagnostics would show. */
  readonly errors: readonly string[];
}

const RESOLVER_KINDS: ReadonlyMap<string, Resolver> = new Map([
  ['KubernetesServiceResolver', 'service'],
  ['KubernetesEndpointResolver', 'endpoint'],
  ['ConsulResolver', 'consul'],
]);
const BUILT_IN_RESOLVERS: ReadonlyMap<string, Resolver> = new Map([
  ['kubernetes-service', 'service'],
  ['endpoint', 'endpoint'],
  ['kubernetes-endpoint', 'endpoint'],
  ['consul', 'consul'],
  ['consul-endpoint', 'consul'],
]);
const ENDPOINT_POLICIES = ['round_robin', 'least_request', 'ring_hash', 'maglev'];

/** Whether this gateway reads the Mapping at all. */
export function seesMapping(mapping: KubeObject, env: EmissaryEnv): boolean {
  return visible(mapping, env) && answersTo(mappingSpec(mapping).ambassadorId, env.ambassadorId);
}

/** Emissary's rules, which fail open: a context that cannot be used has the effect of none. */
export function effectiveUpstream(
  mapping: KubeObject,
  contexts: readonly KubeObject[] | ReadonlyMap<string, ContextReading>,
  secrets: readonly KubeObject[],
  env: EmissaryEnv,
): EffectiveUpstream {
  const named = contexts instanceof Map ? contexts : readContexts(contexts as readonly KubeObject[], secrets, env);
  const spec = mappingSpec(mapping);
  const resolver = resolverOf(spec, env);
  const address = parseService(spec.service, qualifier(mapping, resolver, env));
  const errors = [...address.errors];
  const wanted = typeof spec.tls === 'string' ? named.get(spec.tls) : undefined;
  const context = wanted?.usable ? wanted : undefined;
  if (typeof spec.tls === 'string' && !context) {
    errors.push(`Originate-TLS context ${spec.tls} is not defined`, ...(wanted?.errors ?? []));
  }
  const asked = spec.tls === true || context !== undefined;
  if (asked && address.scheme === 'http') errors.push(`TLS is used though service ${spec.service} says http`);
  const tls = asked || address.scheme === 'https';
  const nameFields = [
    ...['cluster', spec.clusterTag, address.normalized],
    ...[tls && 'otls', address.scheme === undefined && context?.name],
    ...[tls && spec.hostRewrite && `hr-${spec.hostRewrite}`, mapping.metadata.namespace],
    ...breakerNames(spec.circuitBreakers ?? env.module?.circuitBreakers),
    policyName(spec.loadBalancer ?? env.module?.loadBalancer),
  ];
  return {
    mode: !tls ? 'plaintext' : context?.certificate && context.ca ? 'mtls' : 'tls-unverified',
    dropped: dropped(spec, resolver, env),
    cluster: nameFields
      .filter((one) => one !== undefined && one !== false)
      .join('_')
      .replace(/[^0-9A-Za-z_]/g, '_'),
    host: address.host,
    port: address.port ?? (tls ? 443 : 80),
    resolver,
    context,
    errors,
  };
}

const resolverName = (spec: MappingSpec, env: EmissaryEnv): string =>
  spec.resolver ?? env.module?.resolver ?? 'kubernetes-service';

function resolverOf(spec: MappingSpec, env: EmissaryEnv): Resolver {
  const name = resolverName(spec, env);
  return env.resolvers?.get(name) ?? BUILT_IN_RESOLVERS.get(name) ?? 'unknown';
}

/** The resolvers among objects that this gateway uses, by name. Names are global, as those of TLSContexts are. */
export function resolversIn(objects: readonly KubeObject[], env: EmissaryEnv): ReadonlyMap<string, Resolver> {
  const named = new Map<string, Resolver>();
  const seen = objects.filter(
    (one) =>
      RESOLVER_KINDS.has(one.kind) && visible(one, env) && answersTo(fields(one.spec).ambassador_id, env.ambassadorId),
  );
  for (const { kind, metadata, spec } of seen.sort(byName)) {
    const name = named.has(metadata.name) ? nameAmongAll(metadata) : metadata.name;
    const isComplete = kind !== 'ConsulResolver' || text(fields(spec).datacenter) !== undefined;
    named.set(name, (isComplete && RESOLVER_KINDS.get(kind)) || 'unknown');
  }
  return named;
}

const nameAmongAll = ({ name, namespace }: KubeObject['metadata']): string => `${name}.${namespace}`;

const byName = (a: KubeObject, b: KubeObject): number => (nameAmongAll(a.metadata) < nameAmongAll(b.metadata) ? -1 : 1);

export interface ReadMapping {
  readonly object: KubeObject;
  readonly upstream: EffectiveUpstream;
}

/**
 * The order in which Emissary makes the clusters of Mappings: by `name.namespace`, with those for the same requests
 * together, and TCPMappings last.
 */
export function inOrder<T extends ReadMapping>(mappings: readonly T[]): T[] {
  const groups = new Map<string, T[]>();
  for (const mapping of [...mappings].sort((a, b) => byName(a.object, b.object))) {
    const { object, upstream } = mapping;
    const key = upstream.dropped === undefined ? requestsOf(object) : nameAmongAll(object.metadata);
    const group = groups.get(key);
    if (group) group.push(mapping);
    else groups.set(key, [mapping]);
  }
  const isTcp = ({ object }: ReadMapping) => object.kind === 'TCPMapping';
  const ordered = [...groups.values()].flat();
  return [...ordered.filter((one) => !isTcp(one)), ...ordered.filter(isTcp)];
}

/** Equal for Mappings that share requests, such as two with weights. */
function requestsOf({ kind, spec }: KubeObject): string {
  const { hostname, host, prefix, method, headers, query_parameters, precedence, address, port } = fields(spec);
  return JSON.stringify([kind, hostname, host, prefix, method, headers, query_parameters, precedence, address, port]);
}

/** A bare host name of a Mapping outside the gateway's namespace means a Service beside the Mapping. */
function qualifier({ metadata }: KubeObject, resolver: Resolver, env: EmissaryEnv): string | undefined {
  if (resolver === 'consul' || env.module?.resolvesInOwnNamespace) return undefined;
  return metadata.namespace === env.namespace ? undefined : metadata.namespace;
}

function dropped(spec: MappingSpec, resolver: Resolver, env: EmissaryEnv): string | undefined {
  const { loadBalancer, service } = spec;
  if (resolver === 'unknown') return `there is no resolver ${resolverName(spec, env)}`;
  if (resolver === 'service' && loadBalancer)
    return 'load_balancer takes a resolver of endpoints, such as a ConsulResolver';
  if (resolver === 'consul' && service.includes('.')) return 'a service of a ConsulResolver has no dots in its name';
  return undefined;
}

/** The limits in the form in which they appear in the name of a cluster, such as `cbnc5`. */
function breakerNames(value: unknown): string[] {
  return (Array.isArray(value) ? value : []).map((one) => {
    const { priority, max_connections, max_pending_requests, max_requests, max_retries } = fields(one);
    const limits = { c: max_connections, p: max_pending_requests, r: max_requests, t: max_retries };
    const set = Object.entries(limits).filter(([, limit]) => limit !== undefined);
    return `cb${text(priority)?.[0]?.toLowerCase() ?? 'n'}${set.map(([key, limit]) => `${key}${limit}`).join('')}`;
  });
}

function policyName(balancer: LoadBalancer | undefined): string | undefined {
  if (!balancer || !ENDPOINT_POLICIES.includes(balancer.policy)) return undefined;
  const { policy, header, cookie, sourceIp } = balancer;
  const by = [header && `hdr-${header}`, cookie && `cookie-${cookie}`, sourceIp && 'srcip'].filter(Boolean);
  return ['er', policy, ...by].join('-');
}

export interface PemFile {
  /** As in Envoy's configuration; the directory is internal to Emissary, the file name is `secretFileName`. */
  readonly path: string;
  /** Absent for a path in the gateway's own pod that is unknown here. */
  readonly pem: string | undefined;
}

/** What only the gateway's own pod knows. */
export interface PodFiles {
  /** PEM text by path; a path that is not here does not exist. */
  readonly files: ReadonlyMap<string, string>;
  /** The Secret `istio-certs` that Emissary synthesizes from the files of its sidecar, as soon as there are some. */
  readonly madeUp?: KubeObject | undefined;
}

/** A part of a TLS context, by its field in Envoy's configuration. */
export type TlsPart = 'certificate_chain' | 'trusted_ca' | 'crl';

/** One TLSContext as the gateway reads it. */
export interface ContextReading {
  /** Under which Mappings find it. */
  readonly name: string;
  readonly namespace: string;
  readonly object: KubeObject;
  readonly spec: ContextSpec;
  /** False: Mappings that name it are served as if it did not exist. */
  readonly usable: boolean;
  readonly certificate: PemFile | undefined;
  readonly key: PemFile | undefined;
  readonly ca: PemFile | undefined;
  readonly crl: PemFile | undefined;
  /**
   * Parts that Emissary configures without a file, because their Secret has another key that it reads. Envoy refuses
   * the whole configuration.
   */
  readonly withoutFile: readonly TlsPart[];
  readonly errors: readonly string[];
}

export interface SecretRef {
  readonly name: string;
  readonly namespace: string;
}

const BASE = '/tmp/ambassador/snapshots';

/**
 * The contexts that this gateway sees, by the name under which Mappings find them. Names are global: if two contexts
 * have the same name, the one in the alphabetically first namespace gets it, the other becomes `name.namespace`, and
 * nothing is reported. Without `pod`, files that a context names are assumed to exist.
 */
export function readContexts(
  contexts: readonly KubeObject[],
  secrets: readonly KubeObject[],
  env: EmissaryEnv,
  pod?: PodFiles,
): ReadonlyMap<string, ContextReading> {
  const seen = contexts
    .filter((context) => visible(context, env) && answersTo(contextSpec(context).ambassadorId, env.ambassadorId))
    .sort((a, b) => compare(a.metadata.namespace ?? '', b.metadata.namespace ?? ''));
  const shipped = shippedSecrets(seen, env);
  const files = new Map<string, SecretFiles>();
  // The Secret of a sidecar's files comes last, and so replaces a real one of its name.
  const taken = [...secrets.filter((one) => visible(one, env)), ...(pod?.madeUp ? [pod.madeUp] : [])];
  for (const secret of taken) {
    const key = keyOf({ name: secret.metadata.name, namespace: secret.metadata.namespace ?? '' });
    const read = shipped.has(key) ? readSecretFiles(secret) : undefined;
    if (read && !(env.forceSecretValidation && !passesValidation(read))) files.set(key, read);
  }
  const named = new Map<string, ContextReading>();
  for (const context of seen) {
    const { name, namespace = '' } = context.metadata;
    const reading = readContext(context, named.has(name) ? `${name}.${namespace}` : name, files, env, pod);
    named.set(reading.name, reading);
  }
  return named;
}

/** Where a context's Secret is looked up: if namespacing is on, the part after the last dot is the namespace. */
export function secretRef(name: string, context: KubeObject, namespacing: boolean): SecretRef {
  const dot = namespacing ? name.lastIndexOf('.') : -1;
  if (dot < 0) return { name, namespace: context.metadata.namespace ?? '' };
  return { name: name.slice(0, dot), namespace: name.slice(dot + 1) };
}

/** Namespacing in the half of the gateway that reads Secrets into files. */
export function namespacing(spec: ContextSpec, env: EmissaryEnv): boolean {
  return spec.secretNamespacing ?? env.module?.tlsSecretNamespacing ?? true;
}

/**
 * Namespacing in the half that decides which Secrets it gets: off as soon as there is a Module, unless configured
 * otherwise.
 */
export function shippingNamespacing(spec: ContextSpec, env: EmissaryEnv): boolean {
  return spec.secretNamespacing ?? (env.module ? (env.module.tlsSecretNamespacing ?? false) : true);
}

function shippedSecrets(contexts: readonly KubeObject[], env: EmissaryEnv): ReadonlySet<string> {
  return new Set(
    contexts.flatMap((context) => {
      const spec = contextSpec(context);
      return [spec.secret, spec.caSecret, spec.crlSecret].flatMap((name) =>
        name === undefined ? [] : [keyOf(secretRef(name, context, shippingNamespacing(spec, env)))],
      );
    }),
  );
}

function readContext(
  object: KubeObject,
  name: string,
  secrets: ReadonlyMap<string, SecretFiles>,
  env: EmissaryEnv,
  pod: PodFiles | undefined,
): ContextReading {
  const spec = contextSpec(object);
  const { namespace = '' } = object.metadata;
  const errors: string[] = [];
  const withoutFile: TlsPart[] = [];
  const find = (wanted: string) => secrets.get(keyOf(secretRef(wanted, object, namespacing(spec, env))));
  const decoded = (of: SecretFiles | undefined, pem: string | undefined, extension: string): PemFile | undefined =>
    of && pem !== undefined
      ? { path: `${BASE}/${of.namespace}/secrets-decoded/${of.name}/${of.stem}.${extension}`, pem }
      : undefined;
  const onDisk = (path: string | undefined): PemFile | undefined => {
    if (path === undefined) return undefined;
    if (pod && !pod.files.has(path)) errors.push(`${name}: found no file ${path}`);
    return { path, pem: pod?.files.get(path) };
  };

  const sources = [
    ...[spec.secret, spec.caSecret, spec.crlSecret],
    ...[spec.certChainFile, spec.privateKeyFile, spec.caCertChainFile],
  ];
  if (sources.every((source) => source === undefined)) errors.push(`${name}: no certificate information at all`);
  if (spec.secret && spec.certChainFile) errors.push(`${name}: exactly one of secret and cert_chain_file may be set`);
  if (spec.certChainFile && !spec.privateKeyFile) errors.push(`${name}: cert_chain_file needs private_key_file`);
  const identity = spec.secret ? find(spec.secret) : undefined;
  if (spec.secret && !identity) errors.push(`${name}: found no certificate in ${spec.secret}`);
  else if (spec.secret && !identity?.key) errors.push(`${name}: found no private key in ${spec.secret}`);
  else if (spec.secret && !identity?.certificate) withoutFile.push('certificate_chain');
  const certificate = decoded(identity, identity?.certificate, 'crt') ?? onDisk(spec.certChainFile);
  const key = decoded(identity, identity?.key, 'key') ?? onDisk(spec.privateKeyFile);
  const ca = spec.caSecret ? find(spec.caSecret) : undefined;
  const beside = onDisk(spec.caCertChainFile) ?? decoded(identity, identity?.root, 'root.crt');
  if ((spec.caSecret || beside) && !certificate) errors.push(`${name}: roots without a certificate`);
  else if (spec.caSecret && !ca) errors.push(`${name}: found no validation certificate in ${spec.caSecret}`);
  else if (spec.caSecret && !ca?.certificate) withoutFile.push('trusted_ca');
  const crl = spec.crlSecret ? find(spec.crlSecret) : undefined;
  if (spec.crlSecret && !crl) errors.push(`${name}: found no revocation list in ${spec.crlSecret}`);
  else if (spec.crlSecret && !crl?.user) withoutFile.push('crl');
  if (spec.hosts.length > 0 && !certificate) errors.push(`${name}: hosts without a certificate`);

  return {
    name,
    namespace,
    object,
    spec,
    certificate,
    key,
    ca: spec.caSecret ? decoded(ca, ca?.certificate, 'crt') : beside,
    crl: decoded(crl, crl?.user, 'user'),
    usable: errors.length === 0,
    withoutFile,
    errors,
  };
}

export function visible(object: KubeObject, env: EmissaryEnv): boolean {
  if (env.singleNamespace && object.metadata.namespace !== env.namespace) return false;
  return selects(env.labelSelector, object.metadata.labels);
}

const keyOf = ({ namespace, name }: SecretRef): string => `${namespace}/${name}`;
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** The settings in this gateway's Module named `ambassador`, or undefined when there is none. */
export function moduleSettings(modules: readonly KubeObject[], env: EmissaryEnv): ModuleSettings | undefined {
  const module = modules.find(
    (one) => one.metadata.name === 'ambassador' && answersTo(fields(one.spec).ambassador_id, env.ambassadorId),
  );
  if (!module) return undefined;
  const config = fields(fields(module.spec).config);
  const namespacing = fields(config.defaults).tls_secret_namespacing;
  return {
    tlsSecretNamespacing: typeof namespacing === 'boolean' ? namespacing : undefined,
    resolvesInOwnNamespace: config.use_ambassador_namespace_for_service_resolution === true,
    resolver: text(config.resolver),
    loadBalancer: loadBalancer(config.load_balancer),
    circuitBreakers: config.circuit_breakers,
  };
}

/** What the gateway's environment and its `ambassador` Module configure about how it reads objects. */
export interface EmissaryEnv {
  /** AMBASSADOR_ID. */
  readonly ambassadorId: string;
  /** AMBASSADOR_NAMESPACE: where the gateway runs. */
  readonly namespace: string;
  /** AMBASSADOR_SINGLE_NAMESPACE: nothing outside `namespace` is seen. */
  readonly singleNamespace: boolean;
  /** AMBASSADOR_LABEL_SELECTOR; applies to Secrets and TLSContexts too. */
  readonly labelSelector?: string | undefined;
  /** AMBASSADOR_ISTIO_SECRET_DIR is set: a Secret `istio-certs` made of the files there replaces a real one. */
  readonly istioSecretDir: boolean;
  /** AMBASSADOR_EDS_BYPASS. */
  readonly edsBypass: boolean;
  /** AMBASSADOR_FORCE_SECRET_VALIDATION: Secrets that its own parser refuses are withheld. */
  readonly forceSecretValidation?: boolean | undefined;
  /** AMBASSADOR_RECONFIG_MAX_DELAY, in milliseconds: changes within it are one batch. */
  readonly batchMs: number;
  /** Of the Module named `ambassador`; absent: there is no such Module. */
  readonly module?: ModuleSettings | undefined;
  /** Resolvers by name, in addition to Emissary's built-in ones. */
  readonly resolvers?: ReadonlyMap<string, Resolver> | undefined;
  /** Such as `4.1.0`; absent: unknown. */
  readonly version?: string | undefined;
}

/** What finds the endpoints behind a host. `unknown`: there is no such object, or it was not read. */
export type Resolver = 'service' | 'endpoint' | 'consul' | 'unknown';

interface ModuleSettings {
  /** `defaults.tls_secret_namespacing` */
  readonly tlsSecretNamespacing?: boolean | undefined;
  /** `use_ambassador_namespace_for_service_resolution` */
  readonly resolvesInOwnNamespace?: boolean | undefined;
  readonly resolver?: string | undefined;
  readonly loadBalancer?: LoadBalancer | undefined;
  readonly circuitBreakers?: unknown;
}

export const DEFAULT_ENV: EmissaryEnv = {
  ambassadorId: 'default',
  namespace: 'emissary',
  singleNamespace: false,
  istioSecretDir: false,
  edsBypass: false,
  batchMs: 1_000,
};

/** Whether an object with this `ambassador_id` is for a gateway of this id. */
export function answersTo(ids: unknown, ambassadorId: string): boolean {
  const list = Array.isArray(ids) ? ids : typeof ids === 'string' ? [ids] : [];
  if (list.length === 0) return ambassadorId === 'default';
  return list.includes('_automatic_') || list.includes(ambassadorId);
}

/** Equality, inequality and existence, joined by commas: the part of the label selector grammar that Emissary's users write. */
export function selects(selector: string | undefined, labels: Readonly<Record<string, string>> = {}): boolean {
  if (!selector) return true;
  return selector.split(',').every((term) => {
    const [, negated, key = '', operator, value = ''] =
      /^(!?)([^=!\s]+)(?:\s*(==?|!=)\s*|\s+|$)(\S*)$/.exec(term.trim()) ?? [];
    if (operator === '!=') return labels[key] !== value;
    if (operator) return labels[key] === value;
    return negated ? !(key in labels) : key in labels;
  });
}

/** A container of the gateway, and how it reads objects. */
interface FoundGateway {
  readonly object: KubeObject;
  readonly image: string;
  readonly env: EmissaryEnv;
}

/** Names of images of Emissary or Ambassador, such as `ghcr.io/emissary-ingress/emissary:4.1.0`. */
const IMAGE = /(?:^|\/)(?:emissary|ambassador|aes)(?::|@|$)/;
/** The conversion webhook has the same image, and does not serve requests. */
const WEBHOOK = /apiext/;

/** The gateways among the workloads, with the settings in their environment. */
export function findGateways(objects: readonly KubeObject[]): FoundGateway[] {
  return objects.flatMap((object) => {
    if (object.kind !== 'Deployment' && object.kind !== 'DaemonSet') return [];
    if (WEBHOOK.test(object.metadata.name)) return [];
    const container = containerFields(object).find(isGateway);
    return container ? [{ object, image: text(container.image) ?? '', env: envOf(object, container) }] : [];
  });
}

function isGateway(container: Readonly<Record<string, unknown>>): boolean {
  const words = [container.command, container.args].flat().join(' ');
  return IMAGE.test(text(container.image) ?? '') && !WEBHOOK.test(words) && !isConnector(container);
}

export const isConnector = (container: Readonly<Record<string, unknown>>): boolean =>
  [container.command, container.args].flat().includes('consul_connect_integration');

function envOf(object: KubeObject, container: Readonly<Record<string, unknown>>): EmissaryEnv {
  const list = listOfFields(container.env);
  const get = (name: string) => text(list.find((one) => one.name === name)?.value) || undefined;
  const on = (name: string) => get(name)?.toLowerCase() === 'true' || get(name) === '1';
  const delay = Number(get('AMBASSADOR_RECONFIG_MAX_DELAY') ?? 1);
  return {
    ambassadorId: get('AMBASSADOR_ID') ?? DEFAULT_ENV.ambassadorId,
    namespace: get('AMBASSADOR_NAMESPACE') ?? object.metadata.namespace ?? DEFAULT_ENV.namespace,
    // Any text switches it on, "false" too: cmd/entrypoint/helpers.go of Emissary asks only whether it is empty.
    singleNamespace: get('AMBASSADOR_SINGLE_NAMESPACE') !== undefined,
    labelSelector: get('AMBASSADOR_LABEL_SELECTOR'),
    istioSecretDir: get('AMBASSADOR_ISTIO_SECRET_DIR') !== undefined,
    edsBypass: on('AMBASSADOR_EDS_BYPASS'),
    batchMs: Number.isFinite(delay) ? delay * 1_000 : DEFAULT_ENV.batchMs,
    forceSecretValidation: on('AMBASSADOR_FORCE_SECRET_VALIDATION'),
    version: versionOf(text(container.image)),
  };
}

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

interface LoadBalancer {
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

function loadBalancer(value: unknown): LoadBalancer | undefined {
  const { policy, header, cookie, source_ip } = fields(value);
  const named = text(policy);
  if (named === undefined) return undefined;
  return { policy: named, header: text(header), cookie: text(fields(cookie).name), sourceIp: source_ip !== undefined };
}

/** One Secret as Emissary decodes it; all texts are PEM. */
interface SecretFiles {
  readonly namespace: string;
  readonly name: string;
  /** The stem of every file of this Secret: SHA-1 over certificate, key and user key, upper-case hex. */
  readonly stem: string;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  readonly user: string | undefined;
  readonly root: string | undefined;
}

/** Any other type is ignored silently and reads as missing. */
export const SECRET_TYPES = ['kubernetes.io/tls', 'Opaque', 'istio.io/key-and-cert'];

/** What Emissary reads from a Secret, or undefined when it treats the Secret as missing. */
export function readSecretFiles(secret: KubeObject): SecretFiles | undefined {
  if (!SECRET_TYPES.includes(text(secret.type) ?? 'Opaque')) return undefined;
  const data = decodeData(secret);
  const certificate = data['tls.crt'] ?? data['cert-chain.pem'];
  const user = data['user.key'] ?? data['crl.pem'];
  if (certificate === undefined && user === undefined) return undefined;
  const key = data['tls.key'] ?? data['key.pem'];
  return {
    namespace: secret.metadata.namespace ?? '',
    name: secret.metadata.name,
    stem: stemOf(certificate, key, user),
    certificate,
    key,
    user,
    root: data['root-cert.pem'],
  };
}

/**
 * AMBASSADOR_FORCE_SECRET_VALIDATION: the first PEM block of certificate and key must parse; the rest is not checked.
 */
function passesValidation({ certificate, key }: SecretFiles): boolean {
  try {
    if (certificate !== undefined) parseCertificates(firstBlock(certificate));
    if (key !== undefined) PrivateKey.fromPem(firstBlock(key));
    return true;
  } catch {
    return false;
  }
}

/** From the first begin that has an end: what is before it is no block. */
function firstBlock(pem: string): string {
  for (const { 0: begin, 1: label, index } of pem.matchAll(/-----BEGIN ([^-]+)-----/g)) {
    const end = `-----END ${label}-----`;
    const at = pem.indexOf(end, index + begin.length);
    if (at !== -1) return pem.slice(index, at + end.length);
  }
  return '';
}

/**
 * The file name, without directory and extension, under which Emissary stores this pair: it changes with the pair, but
 * not with `root-cert.pem`. `data` is a Secret's, base64.
 */
export function secretFileName(data: Readonly<Record<string, string>>): string {
  const decoded = decodeData({ apiVersion: 'v1', kind: 'Secret', metadata: { name: '' }, data });
  return stemOf(
    decoded['tls.crt'] ?? decoded['cert-chain.pem'],
    decoded['tls.key'] ?? decoded['key.pem'],
    decoded['user.key'] ?? decoded['crl.pem'],
  );
}

function stemOf(...parts: (string | undefined)[]): string {
  const hash = createHash('sha1');
  for (const part of parts) hash.update(part ?? '');
  return hash.digest('hex').toUpperCase();
}

/** `spec.service` of a Mapping or a TCPMapping, parsed as Emissary does. */
interface ServiceAddress {
  readonly scheme: 'http' | 'https' | undefined;
  /** Lower case and qualified; `unknown` when there is none. */
  readonly host: string;
  /** Absent: 443 where TLS is originated, else 80. An invalid port counts as absent. */
  readonly port: number | undefined;
  /** The whole in Emissary's normal form, which names clusters. Malformed input stays as it was written. */
  readonly normalized: string;
  /** What Emissary reports or ignores. */
  readonly errors: readonly string[];
}

/** `namespace` qualifies a bare host name; absent: it is resolved as it is, from the gateway's own namespace. */
export function parseService(service: string, namespace?: string): ServiceAddress {
  const errors: string[] = [];
  const [, scheme, rest = ''] = /^(?:([a-z0-9+.-]*):\/\/|\/\/)?(.*)$/is.exec(service) ?? [];
  const known = /^https?$/i.test(scheme ?? '') ? scheme?.toLowerCase() : undefined;
  if (scheme && !known) errors.push(`service ${service} has the scheme ${scheme}, which is ignored`);
  const [authority = ''] = rest.split(/[/?#]/, 1);
  if (authority !== rest) errors.push(`service ${service} has more than a host and a port; the rest is ignored`);
  const [, bracketed, plain = '', digits] =
    /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/.exec(authority.slice(authority.lastIndexOf('@') + 1)) ?? [];
  const name = (bracketed ?? plain).toLowerCase();
  const port = digits === undefined || digits === '' ? 0 : /^\d+$/.test(digits) ? Number(digits) : Number.NaN;
  const validPort = port <= 65_535;
  if (!validPort) errors.push(`service ${service} has no valid port, and the default of 443 or 80 is used`);
  if (name === '') errors.push(`service ${service} has no host name, and requests go to a host called unknown`);
  const malformed = !validPort || name === '';
  // Malformed input that starts with // stays unchanged, and then has no host.
  const lost = malformed && service.startsWith('//');
  // Emissary cannot undo the brackets after it has rejected the port, and its whole configuration fails.
  if (!validPort && bracketed !== undefined && !lost) {
    errors.push(`service ${service} makes Emissary fail: no change of any object arrives until it is corrected`);
  }
  const bare = !/[.:]/.test(name) && name !== 'localhost';
  const host = bare && namespace !== undefined && !malformed ? `${name}.${namespace}` : name;
  const authorityOf = host.includes(':') ? `[${host}]` : host;
  return {
    scheme: known === 'http' || known === 'https' ? known : undefined,
    host: lost || host === '' ? 'unknown' : host,
    port: validPort && port !== 0 && !lost ? port : undefined,
    normalized: malformed
      ? service
      : `${scheme ? `${scheme.toLowerCase()}://` : ''}${authorityOf}${port === 0 ? '' : `:${port}`}`,
    errors,
  };
}
