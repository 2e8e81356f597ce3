import { MeshError } from '../../src/mesh/error.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { formatSpiffeId, parseSpiffeId } from '../../src/pki/spiffe.ts';
import type { ConsulConfig } from './config.ts';

/** `[/ap/<partition>]/ns/<namespace>/dc/<datacenter>/svc/<service>`. */
export function servicePath(config: ConsulConfig, datacenter: string): string {
  const { partition, namespace = 'default', service } = config;
  const prefix = partition === undefined || partition === 'default' ? '' : `/ap/${partition}`;
  return `${prefix}/ns/${namespace}/dc/${datacenter}/svc/${service}`;
}

/** The SPIFFE ID of the configured service in this trust domain; needs the datacenter. */
export function serviceId(config: ConsulConfig, trustDomain: string): string {
  return formatSpiffeId({ trustDomain, path: servicePath(config, config.datacenter ?? '') });
}

/**
 * Why this leaf is not the configured service in this trust domain, or undefined. Without a configured datacenter any
 * is accepted.
 */
export function wrongName(config: ConsulConfig, leaf: Certificate, trustDomain: string): string | undefined {
  const [uri = ''] = leaf.names.uris;
  const id = parseSpiffeId(uri);
  if (!id || leaf.names.uris.length > 1) return `the leaf has the URI names [${leaf.names.uris.join(', ')}]`;
  if (id.trustDomain !== trustDomain)
    return `the leaf is in trust domain ${id.trustDomain}, and Consul's is ${trustDomain}`;
  const datacenter = config.datacenter ?? /\/dc\/([^/]+)\/svc\//.exec(id.path)?.[1] ?? '';
  const wanted = servicePath(config, datacenter);
  return id.path === wanted
    ? undefined
    : `the leaf is for ${uri}, expected ${formatSpiffeId({ trustDomain, path: wanted })}`;
}

/** Throws when the configuration pins a trust domain other than Consul's. */
export function checkTrustDomain(config: ConsulConfig, trustDomain: string): void {
  if (config.trustDomain === undefined || config.trustDomain === trustDomain) return;
  throw new MeshError(
    'ERR_MESH_CONFIG',
    `Consul's trust domain is ${trustDomain}, but spec.consul.trustDomain is ${config.trustDomain}; change trustDomain, or remove it to follow the cluster`,
  );
}
