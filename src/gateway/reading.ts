import type { KubeObject } from '../core/object.ts';
import { type ContextReading, readContexts, visible } from './context.ts';
import { answersTo, type EmissaryEnv } from './env.ts';
import { mappingSpec } from './kinds.ts';
import { parseService } from './service.ts';

/**
 * How requests of one Mapping really reach its upstream. `mtls`: a client certificate is shown and the server's is
 * verified. `tls-unverified`: the server's is not verified, whether or not one is shown. `plaintext`: as it says.
 */
export interface EffectiveUpstream {
  readonly mode: 'plaintext' | 'tls-unverified' | 'mtls';
  /** False where the service has no host or no valid port: Emissary then leaves the cluster out. */
  readonly routable: boolean;
  /** Of two Mappings with the same cluster, the first decides for both. */
  readonly cluster: string;
  readonly host: string;
  readonly port: number;
  /** The context in force; absent when none is named, or the one named cannot be used. */
  readonly context: ContextReading | undefined;
  /** What the gateway's diagnostics would say. */
  readonly errors: readonly string[];
}

/** Whether this gateway takes the Mapping at all. */
export function seesMapping(mapping: KubeObject, env: EmissaryEnv): boolean {
  return visible(mapping, env) && answersTo(mappingSpec(mapping).ambassadorId, env.ambassadorId);
}

/** Emissary's rules, with their fail-open: a context that cannot be used is as good as none. */
export function effectiveUpstream(
  mapping: KubeObject,
  contexts: readonly KubeObject[] | ReadonlyMap<string, ContextReading>,
  secrets: readonly KubeObject[],
  env: EmissaryEnv,
): EffectiveUpstream {
  const named = contexts instanceof Map ? contexts : readContexts(contexts as readonly KubeObject[], secrets, env);
  const spec = mappingSpec(mapping);
  const address = parseService(spec.service, mapping.kind !== 'TCPMapping');
  const errors = [...address.errors];
  const wanted = typeof spec.tls === 'string' ? named.get(spec.tls) : undefined;
  const context = wanted?.usable ? wanted : undefined;
  if (typeof spec.tls === 'string' && !context) {
    errors.push(`Originate-TLS context ${spec.tls} is not defined`, ...(wanted?.errors ?? []));
  }
  const asked = spec.tls === true || context !== undefined;
  if (asked && address.scheme === 'http') errors.push(`TLS is used though service ${spec.service} says http`);
  const tls = asked || address.scheme === 'https';
  return {
    mode: !tls ? 'plaintext' : context?.certificate && context.ca ? 'mtls' : 'tls-unverified',
    routable: address.routable,
    cluster: clusterName(mapping, tls, address.scheme === undefined ? context?.name : undefined),
    host: address.host,
    port: address.port ?? (tls ? 443 : 80),
    context,
    errors,
  };
}

/** The context is part of the name only where the service has no scheme. */
function clusterName(mapping: KubeObject, tls: boolean, context: string | undefined): string {
  const { service, hostRewrite } = mappingSpec(mapping);
  const parts = [
    'cluster',
    service,
    ...(tls ? ['otls'] : []),
    ...(context === undefined ? [] : [context]),
    ...(tls && hostRewrite ? [`hr-${hostRewrite}`] : []),
    mapping.metadata.namespace ?? '',
  ];
  return parts.join('_').replace(/[^0-9A-Za-z_]/g, '_');
}
