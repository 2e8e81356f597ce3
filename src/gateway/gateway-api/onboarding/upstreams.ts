import { fields, type KubeObject, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { TargetRefusal } from '../../../mesh/targeting.ts';
import type { ClusterLists, GatewayInstallation, RouteObjects, RouteUpstream } from '../../onboarding.ts';
import { isBackend, isGateway } from '../routes/client.ts';
import { backendsIn } from '../routes/usage.ts';
import { GATEWAY_API_RESOURCES as KINDS, STANDARD } from '../spec/resources.ts';
import { classProblem } from './installations.ts';
import { answeringAt, backendOf, http2, servicePortOf, standsFor, targetsOf, titleOf } from './targets.ts';

const isRoute = ({ kind }: KubeObject): boolean => kind === KINDS.httpRoutes.kind || kind === KINDS.grpcRoutes.kind;

/** Namespaces with the Services that routes lead to. */
export const namespacesBehindRoutes = ({ gatewayObjects }: ClusterLists): string[] => {
  const backends = gatewayObjects.filter(isBackend).flatMap((one) => standsFor(one)?.namespace ?? []);
  const services = gatewayObjects
    .filter(isRoute)
    .flatMap(({ metadata, spec }) =>
      backendsIn(spec).flatMap((ref) => servicePortOf(ref, metadata.namespace ?? '')?.namespace ?? []),
    );
  return [...backends, ...services];
};

/** The routes of a Gateway that lead somewhere. */
export const upstreamsOf = ({ object }: GatewayInstallation, objects: RouteObjects): RouteUpstream[] =>
  objects.gatewayObjects
    .filter((route) => isRoute(route) && parentsOf(route).some((parent) => isParent(parent, object)))
    .filter(({ spec }) => backendsIn(spec).length > 0)
    .map((route) => upstreamOf(route, objects));

function upstreamOf(route: KubeObject, objects: RouteObjects): RouteUpstream {
  const { namespace = '' } = route.metadata;
  const targets = targetsOf(route, objects.gatewayObjects);
  const service = 'code' in targets ? namesIn(route) : targets.map(titleOf).join(', ');
  const backend = backendsIn(route.spec).flatMap((ref) => backendOf(ref, namespace, objects.gatewayObjects) ?? [])[0];
  return {
    route,
    service,
    address: service,
    now: backend ? `Backend ${backend.metadata.name}` : 'by its Service',
    answering:
      refusalOf(route, objects.gatewayObjects) ?? ('code' in targets ? targets : answeringAt(targets, objects)),
    requests: requestsOf(route),
  };
}

const namesIn = ({ spec }: KubeObject): string =>
  backendsIn(spec)
    .map(({ name }) => String(name))
    .join(', ');

/** Why a route is not led elsewhere. */
function refusalOf(route: KubeObject, objects: readonly KubeObject[]): TargetRefusal | undefined {
  if (route.kind === KINDS.grpcRoutes.kind) return http2('a GRPCRoute');
  for (const parent of parentsOf(route)) {
    const gateway = objects.find((one) => isGateway(one) && isParent(parent, one));
    if (gateway && !classProblem(gateway, objects)) continue;
    const message = `it also belongs to ${parent.kind} ${parent.namespace}/${parent.name}, which is no Gateway of Envoy Gateway and does not know Backends; give that one a route of its own`;
    return { code: 'ERR_TARGET_CLASS', message };
  }
  return undefined;
}

interface Parent {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

const parentsOf = ({ metadata, spec }: KubeObject): readonly Parent[] =>
  listOfFields(fields(spec).parentRefs).map(({ group = STANDARD, kind = KINDS.gateways.kind, namespace, name }) => ({
    kind: group === STANDARD || group === '' ? String(kind) : `${String(kind)} of ${String(group)}`,
    namespace: text(namespace) ?? metadata.namespace ?? '',
    name: String(name),
  }));

const isParent = ({ kind, namespace, name }: Parent, gateway: KubeObject): boolean =>
  kind === gateway.kind && name === gateway.metadata.name && namespace === gateway.metadata.namespace;

/** A route can have many rules; these show whether each target still answers. */
const MOST_REQUESTS = 8;

/** One for each rule, unless the rule demands what cannot be guessed. */
function requestsOf({ spec }: KubeObject): RouteUpstream['requests'] {
  const { rules, hostnames } = fields(spec);
  const names = Array.isArray(hostnames) ? hostnames.map(String) : [];
  const host = names.find((one) => !one.includes('*')) ?? names[0]?.replace('*', 'www');
  const requests = listOfFields(rules).flatMap(({ matches }) => {
    const [match] = listOfFields(matches);
    const { path, method = 'GET', ...more } = fields(match);
    const { type, value } = fields(path);
    if ((method !== 'GET' && method !== 'HEAD') || Object.keys(more).length > 0 || type === 'RegularExpression')
      return [];
    return [{ method, path: text(value) ?? '/', host, headers: {} } as const];
  });
  return requests.length > 0 ? requests.slice(0, MOST_REQUESTS) : 'no rule of it matches a simple GET';
}
