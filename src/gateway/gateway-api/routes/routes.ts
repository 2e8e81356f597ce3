import { type KubeObject, OWNER_LABEL } from '../../../core/object.ts';
import { hasLabels } from '../../../mesh/kube-object.ts';
import type { RouteJudgement, Routes } from '../../gateway.ts';
import type { GatewayInput, Scope } from '../../input.ts';
import { ownerLabel } from '../../owner.ts';
import { type GatewayApiConfig, placesOf } from '../spec/config.ts';
import { CORE_RESOURCES as CORE, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { GatewayApiTarget } from '../spec/target.ts';
import { isEnvoyProxy, isGateway, judgeClients, presents } from './client.ts';
import { isService, judgeServices, policyTarget } from './services.ts';

const REREAD: GatewayApiTarget = { kind: 'reread' };

/** Gateways and EnvoyProxies, which present the certificate, and Services, whose identity is verified. */
export const gatewayApiRoutes: Routes<GatewayApiConfig, GatewayApiTarget> = {
  scopes(input) {
    const { meta, config } = input;
    const { namespace } = meta;
    const clients: readonly Scope[] = [
      { resource: KINDS.gateways, namespace, optional: true },
      { resource: KINDS.envoyProxies, namespace, optional: true },
    ];
    const places = namespacesOf(input);
    return {
      routes: [...clients, ...places.map((place) => ({ resource: CORE.services, namespace: place }))],
      own: [
        ...places.map((place) => ({ resource: CORE.configMaps, namespace: place, name: config.caConfigMapName })),
        ...clients,
        ...places.map((place) => ({ resource: KINDS.policies, namespace: place, optional: true })),
      ],
    };
  },
  concern(input, own) {
    const { gateways, services } = input.config;
    const covered = new Set(own.map(serviceOf));
    return (object) => {
      if (isGateway(object)) return hasLabels(object, gateways.selector.matchLabels) || presents(object, input);
      if (isEnvoyProxy(object)) return object.metadata.labels?.[OWNER_LABEL] !== ownerLabel(input.meta);
      const { namespace, name } = object.metadata;
      return hasLabels(object, services.selector.matchLabels) || covered.has(`${namespace}/${name}`);
    };
  },
  behind(input, { routes }) {
    const { meta } = input;
    const services = routes.filter(isService);
    const namespaces = [...new Set(services.map(({ metadata }) => metadata.namespace ?? ''))].sort();
    const places = new Set([...namespacesOf(input), meta.namespace]);
    return [
      { resource: KINDS.classes, optional: true },
      ...[KINDS.httpRoutes, KINDS.grpcRoutes].flatMap((resource) =>
        (places.has(undefined) ? [undefined] : [...places]).map((namespace) => ({
          ...{ resource, namespace },
          optional: true,
        })),
      ),
      ...namespaces.flatMap((namespace) => [
        { resource: CORE.pods, namespace },
        { resource: CORE.endpointSlices, namespace },
        { resource: KINDS.policies, namespace, optional: true },
      ]),
    ];
  },
  judge(input, observed): RouteJudgement<GatewayApiTarget> {
    const clients = judgeClients(input, observed);
    const services = judgeServices(input, observed, clients.isReady);
    return {
      verdicts: [...clients.verdicts, ...services.verdicts],
      targets: [...(clients.needsReread ? [REREAD] : []), ...services.targets],
    };
  },
  identities: () => [],
};

function serviceOf(policy: KubeObject): string {
  const target = policyTarget(policy);
  return target ? `${target.namespace}/${target.service}` : '';
}

/** Undefined: all namespaces. */
function namespacesOf({ meta, config }: GatewayInput<GatewayApiConfig>): readonly (string | undefined)[] {
  return placesOf(config, meta.namespace).map((place) => (place === '*' ? undefined : place));
}
