import type { KubeObject } from '../../../core/object.ts';
import { fields, text } from '../../../mesh/kube-object.ts';
import type { TargetRefusal, Workload } from '../../../mesh/targeting.ts';
import type { ClusterLists, RouteObjects, RouteUpstream } from '../../onboarding.ts';
import { mappingSpec } from '../reading/kinds.ts';
import { seesMapping } from '../reading/reading.ts';
import { parseService } from '../reading/service.ts';
import { podsBehind } from '../routes/endpoints.ts';
import { serviceNameOf } from '../routes/service-name.ts';
import type { EmissaryInstallation } from './installations.ts';

export const isMapping = ({ kind }: KubeObject): boolean => kind === 'Mapping' || kind === 'TCPMapping';

/** Namespaces with the Services that Mappings lead to. */
export const namespacesBehindMappings = ({ gatewayObjects }: ClusterLists): string[] =>
  gatewayObjects.filter(isMapping).flatMap((mapping) => {
    const { host } = parseService(mappingSpec(mapping).service);
    const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
    return 'code' in name ? [] : [name.namespace];
  });

export const upstreamsOf = ({ env }: EmissaryInstallation, objects: RouteObjects): RouteUpstream[] =>
  objects.gatewayObjects
    .filter((object) => isMapping(object) && seesMapping(object, env))
    .map((mapping) => upstreamOf(mapping, objects));

function upstreamOf(mapping: KubeObject, objects: RouteObjects): RouteUpstream {
  const { service, tls } = mappingSpec(mapping);
  const { host, port } = dialled(mapping);
  const secure = tls !== undefined || parseService(service).scheme === 'https';
  // A short name has another meaning outside of the Mapping's namespace.
  const qualified = /[.:]/.test(host) ? host : `${host}.${mapping.metadata.namespace}`;
  return {
    route: mapping,
    service,
    address: `${qualified}:${port}`,
    now: typeof tls === 'string' ? `TLSContext ${tls}` : secure ? 'TLS without identity' : 'plaintext',
    answering: answering(mapping, objects),
    requests: requestsOf(mapping),
  };
}

/** Requests that this Mapping demands, unless it demands what cannot be guessed. */
function requestsOf({ kind, spec }: KubeObject): RouteUpstream['requests'] {
  const wanted = fields(spec);
  const hostname = text(wanted.hostname) ?? text(wanted.host);
  if (kind === 'TCPMapping') return [{ port: Number(wanted.port), host: text(wanted.host) }];
  const method = wanted.method ?? 'GET';
  if (method !== 'GET' && method !== 'HEAD') return `it serves ${String(method)} only, which can change something`;
  const guessed = ['prefix_regex', 'host_regex', 'method_regex', 'regex_headers', 'regex_query_parameters'];
  const regex = guessed.find((field) => wanted[field]);
  if (regex) return `it has ${regex}`;
  // True demands any value.
  const valuesOf = (map: unknown) =>
    Object.entries(fields(map)).map(([name, value]): [string, string] => [name, value === true ? '1' : String(value)]);
  const query = new URLSearchParams(valuesOf(wanted.query_parameters)).toString();
  const path = text(wanted.prefix) ?? '/';
  return [
    {
      method,
      path: query === '' ? path : `${path}?${query}`,
      host: hostname === '*' ? undefined : hostname?.replaceAll('*', 'www'),
      headers: Object.fromEntries(valuesOf(wanted.headers)),
    },
  ];
}

/** With the default port, which depends on `spec.tls`. */
function dialled(mapping: KubeObject): { readonly host: string; readonly port: number } {
  const { service, tls } = mappingSpec(mapping);
  const { scheme, host, port } = parseService(service);
  return { host, port: port ?? (tls !== undefined || scheme === 'https' ? 443 : 80) };
}

function answering(mapping: KubeObject, objects: RouteObjects): readonly Workload[] | TargetRefusal {
  const { service, resolver } = mappingSpec(mapping);
  const { errors } = parseService(service);
  if (errors.length > 0 && mapping.kind !== 'TCPMapping') {
    return { code: 'ERR_TARGET_SERVICE_SYNTAX', message: errors.join('; ') };
  }
  const { host, port } = dialled(mapping);
  const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
  if ('code' in name) {
    const resolved = resolver === undefined ? '' : ` (its resolver is ${resolver})`;
    return { code: name.code, message: `${name.message}${resolved}` };
  }
  const pods = podsBehind(name, port, objects);
  return 'code' in pods ? pods : pods.map(({ workload }) => workload);
}

/** The upstream with scheme and port, so that nothing depends on their defaults. */
export function explicitService(mapping: KubeObject): string {
  const { host, port } = dialled(mapping);
  return `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
