import type { KubeObject } from '../../../core/object.ts';
import { fields, text } from '../../../mesh/kube-object.ts';
import { type ContextReading, readContexts, visible } from './context.ts';
import { answersTo, type EmissaryEnv, type Resolver } from './env.ts';
import { type LoadBalancer, type MappingSpec, mappingSpec } from './kinds.ts';
import { parseService } from './service.ts';

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
