import type { ObjectRef, Resource } from '../../../core/object.ts';
import type { ObservedObjects, RouteJudgement, Routes, RouteVerdict } from '../../gateway.ts';
import type { GatewayInput, RouteInput } from '../../input.ts';
import type { EmissaryConfig } from '../spec/config.ts';
import { EMISSARY_RESOURCES as KINDS, MAPPING_FIELD_MANAGER } from '../spec/resources.ts';
import { isMentioned } from './mapping.ts';
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
      verdicts: verdicts.map((verdict) => routeVerdict(verdict, input.meta.namespace, ours)),
    };
  },
  identities: (targets) =>
    targets.flatMap(({ contextName, sni }) => (sni === undefined ? [] : [{ id: sni, object: contextName }])),
};

function routeVerdict(
  { mapping, service, selected, named, outcome }: MappingVerdict,
  namespace: string,
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
  return { ...common, outcome: { target: { object: contextRef(contextName), id: sni, change, isSet } } };
}

/** Undefined: all namespaces. */
function namespacesOf({ meta, config }: GatewayInput<EmissaryConfig>): readonly (string | undefined)[] {
  const listed = config.mappings?.namespaces ?? [meta.namespace];
  return listed.includes('*') ? [undefined] : listed;
}

function selectionOf({ meta, config: { tlsContext, mappings }, rules }: RouteInput<EmissaryConfig>): TargetSelection {
  return {
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
