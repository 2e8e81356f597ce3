import { type KubeObject, keyOf, OWNER_LABEL } from '../../../core/object.ts';
import { hasLabels } from '../../../mesh/kube-object.ts';
import type { RouteJudgement, Routes } from '../../gateway.ts';
import type { Scope } from '../../input.ts';
import { ownerLabel } from '../../owner.ts';
import { policyRef } from '../objects/names.ts';
import { revisionWanted } from '../objects/revision.ts';
import {
  backendPlaces,
  type GatewayApiConfig,
  gatewayPlaces,
  grantablePlaces,
  policyPlaces,
  routePlaces,
  scopesIn,
  servicePlaces,
} from '../spec/config.ts';
import { CORE_RESOURCES as CORE, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { GatewayApiTarget, PolicyTarget } from '../spec/target.ts';
import { endpointsOf, judgeBackends } from './backends.ts';
import { isBackend, isEnvoyProxy, isGateway, judgeClients, presents } from './client.ts';
import { policyTarget, situationOf } from './policies.ts';
import { isService, judgeServices } from './services.ts';

/** Gateways, EnvoyProxies and Backends, which present the certificate, and Services and Backends, which are verified. */
export const gatewayApiRoutes: Routes<GatewayApiConfig, GatewayApiTarget> = {
  scopes({ meta: { namespace: own }, config }) {
    // Those of its own namespace may name the Secret, whatever is configured now.
    const clients: readonly Scope[] = [
      ...scopesIn([own, ...gatewayPlaces(config, own)], { resource: KINDS.gateways }),
      ...scopesIn([own], { resource: KINDS.envoyProxies }),
      ...scopesIn([own, ...backendPlaces(config, own)], { resource: KINDS.backends }),
    ];
    const policies = policyPlaces(config, own);
    return {
      routes: [...clients, ...scopesIn(servicePlaces(config, own), { resource: CORE.services })],
      own: [
        ...scopesIn(policies, { resource: CORE.configMaps, name: config.caConfigMapName }),
        ...clients,
        ...(grantablePlaces(config, own).length > 0 ? scopesIn([own], { resource: KINDS.grants }) : []),
        ...scopesIn(policies, { resource: KINDS.policies }),
      ],
    };
  },
  concern(input, own) {
    const { gateways, services, backends } = input.config;
    const covered = new Set(own.map(coveredBy));
    const isSelected = (object: KubeObject, of: typeof gateways | typeof services | typeof backends) =>
      of !== undefined && hasLabels(object, of.selector.matchLabels);
    return (object) => {
      const { kind, metadata } = object;
      if (isGateway(object)) return isSelected(object, gateways) || presents(object, input);
      if (isEnvoyProxy(object)) return metadata.labels?.[OWNER_LABEL] !== ownerLabel(input.meta);
      if (covered.has(`${kind}/${metadata.namespace}/${metadata.name}`)) return true;
      return isBackend(object) ? isSelected(object, backends) || presents(object, input) : isSelected(object, services);
    };
  },
  behind(input, { routes }) {
    const { meta, config } = input;
    const places = (objects: readonly KubeObject[]) => objects.map(({ metadata }) => metadata.namespace ?? '');
    const services = places(routes.filter(isService));
    const backends = routes.filter(isBackend);
    const upstreams = backends.flatMap(endpointsOf).flatMap(({ service }) => service?.namespace ?? []);
    const sorted = (all: readonly string[]) => [...new Set(all)].sort();
    return [
      { resource: KINDS.classes },
      ...[KINDS.httpRoutes, KINDS.grpcRoutes].flatMap((resource) =>
        scopesIn(routePlaces(config, meta.namespace), { resource }),
      ),
      ...scopesIn(sorted(upstreams), { resource: CORE.services }),
      ...scopesIn(sorted([...services, ...upstreams]), { resource: CORE.pods }),
      ...scopesIn(sorted([...services, ...upstreams]), { resource: CORE.endpointSlices }),
      ...scopesIn(sorted([...services, ...places(backends)]), { resource: KINDS.policies }),
    ];
  },
  judge(input, observed): RouteJudgement<GatewayApiTarget> {
    const clients = judgeClients(input, observed);
    const situation = situationOf(input, observed);
    const backends = judgeBackends(situation, clients.isReady);
    const policies = [...judgeServices(situation, clients.isReady), ...backends.flatMap(({ policy }) => policy ?? [])];
    const needed = new Map<string, PolicyTarget>();
    for (const { target } of policies) if (target) needed.set(keyOf(policyRef(input, target)), target);
    const present = new Set(
      observed.routes.map(({ kind, metadata }) => `${kind}/${metadata.namespace}/${metadata.name}`),
    );
    for (const [key, target] of situation.written) {
      const isGone = !present.has(`${target.of}/${target.namespace}/${target.name}`);
      if (isGone && situation.isUsed(target, undefined)) needed.set(key, target);
    }
    const sorted = [...needed].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, target]) => target);
    return {
      verdicts: [
        ...clients.verdicts,
        ...backends.flatMap(({ client }) => client ?? []),
        ...policies.map(({ verdict }) => verdict),
      ],
      targets: [...clients.targets, ...revisions(observed.own, sorted), ...sorted],
    };
  },
  identities: () => [],
};

/** The bundles that were asked to be written with other bytes. */
function revisions(own: readonly KubeObject[], policies: readonly PolicyTarget[]): readonly GatewayApiTarget[] {
  const bundles = own.filter(({ kind }) => kind === CORE.configMaps.kind);
  return [...new Set(policies.map(({ namespace }) => namespace))].sort().flatMap((namespace) => {
    const bundle = bundles.find(({ metadata }) => metadata.namespace === namespace);
    const revision = bundle ? revisionWanted(bundle) : 0;
    return revision > 0 ? [{ kind: 'revision', namespace, revision } as const] : [];
  });
}

function coveredBy(policy: KubeObject): string {
  const target = policyTarget(policy);
  return target ? `${target.of}/${target.namespace}/${target.name}` : '';
}
