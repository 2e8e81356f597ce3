import { consents } from '../../../core/consent.ts';
import type { KubeObject, ObjectRef, Resource } from '../../../core/object.ts';
import type { ObservedObjects, RouteDestination, RouteJudgement, Routes, RouteVerdict } from '../../gateway.ts';
import type { GatewayInput, RouteInput } from '../../input.ts';
import { parseService } from '../reading/service.ts';
import type { EmissaryConfig } from '../spec/config.ts';
import { EMISSARY_RESOURCES as KINDS, MAPPING_FIELD_MANAGER } from '../spec/resources.ts';
import { isMentioned } from './mapping.ts';
import { serviceNameOf } from './service-name.ts';
import type { MappingVerdict, Target, TargetSelection, TargetWorld } from './target.ts';
import { judgeMappings, namespacesBehind, neededTargets, ownNames } from './targets.ts';

/** The objects that determine the server name of a Mapping's upstream. */
const BACKENDS: readonly Resource[] = [
  { apiVersion: 'v1', kind: 'Service', plural: 'services', namespaced: true },
  { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', plural: 'endpointslices', namespaced: true },
  { apiVersion: 'v1', kind: 'Pod', plural: 'pods', namespaced: true },
];

/** Mappings and TCPMappings: their `spec.tls` names a TLSContext. */
export const emissaryRoutes: Routes<EmissaryConfig, Target> = {
  scopes(input) {
    const places = namespacesOf(input);
    return {
      routes: [KINDS.mappings, KINDS.tcpMappings].flatMap((resource) =>
        places.map((namespace) => ({ resource, namespace })),
      ),
      own: [{ resource: KINDS.tlsContexts, namespace: input.meta.namespace }],
    };
  },
  concern(input, own) {
    const selection = selectionOf(input);
    const ours = ownNames(selection, own);
    return (mapping) => isMentioned(mapping, selection, ours);
  },
  behind(input, { routes, own }) {
    const namespaces = [...namespacesBehind(selectionOf(input), { mappings: routes, contexts: own })];
    return namespaces.flatMap((namespace) => BACKENDS.map((resource) => ({ resource, namespace })));
  },
  judge(input, observed): RouteJudgement<Target> {
    const selection = selectionOf(input);
    const world = worldOf(observed);
    const verdicts = judgeMappings(selection, world);
    const ours = ownNames(selection, world.contexts);
    return {
      targets: neededTargets(selection, world, verdicts),
      verdicts: verdicts.map((verdict) => routeVerdict(verdict, input, ours)),
    };
  },
  identities: (targets) =>
    targets.flatMap(({ contextName, sni }) => (sni === undefined ? [] : [{ id: sni, object: contextName }])),
};

function routeVerdict(
  { mapping, service, selected, named, outcome }: MappingVerdict,
  { meta: { namespace }, rules }: RouteInput<EmissaryConfig>,
  ours: ReadonlySet<string>,
): RouteVerdict {
  const contextRef = (name: string): ObjectRef => {
    const { apiVersion, kind } = KINDS.tlsContexts;
    return { apiVersion, kind, namespace, name };
  };
  const common = {
    route: mapping,
    service,
    selected,
    uses: named,
    dependsOn: named !== undefined && ours.has(named) ? contextRef(named) : undefined,
  };
  if ('code' in outcome) return { ...common, outcome };
  const { contextName, sni } = outcome.target;
  const change = { fields: { spec: { tls: contextName } }, fieldManager: MAPPING_FIELD_MANAGER };
  const isSet = named === contextName;
  return {
    ...common,
    // Whoever may write a Mapping in another namespace must not choose where the agent connects to.
    upstreams: consents(mapping, namespace) ? [upstreamOf(mapping, service, sni, rules !== undefined)] : undefined,
    outcome: { target: { object: contextRef(contextName), id: sni, change, isSet } },
  };
}

function upstreamOf(mapping: KubeObject, text: string, sni: string | undefined, isIdentity: boolean): RouteDestination {
  const { namespace = '' } = mapping.metadata;
  const { host, port = 443 } = parseService(text, namespace);
  const service = serviceNameOf(host, namespace);
  return {
    address: `${host.includes(':') ? `[${host}]` : host}:${port}`,
    sni,
    id: isIdentity ? sni : undefined,
    service: 'code' in service ? undefined : service,
  };
}

/** Undefined: all namespaces. */
function namespacesOf({ meta, config }: GatewayInput<EmissaryConfig>): readonly (string | undefined)[] {
  const listed = config.leftIn ?? config.mappings?.namespaces ?? [meta.namespace];
  return listed.includes('*') ? [undefined] : listed;
}

function selectionOf({ meta, config, rules }: RouteInput<EmissaryConfig>): TargetSelection {
  const { tlsContext, mappings, leftIn } = config;
  return {
    isLeft: leftIn !== undefined,
    namespace: meta.namespace,
    contextName: tlsContext.name,
    sni: tlsContext.sni,
    ambassadorIds: tlsContext.ambassadorIds,
    selector: mappings?.selector.matchLabels,
    rules,
  };
}

function worldOf({ routes, own, behind, unseen }: ObservedObjects): TargetWorld {
  return {
    mappings: routes,
    contexts: own,
    services: behind('Service'),
    endpointSlices: behind('EndpointSlice'),
    pods: behind('Pod'),
    unseen,
  };
}
