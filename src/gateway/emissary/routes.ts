import { createHash } from 'node:crypto';
import { consentRefusal, consents } from '../../core/consent.ts';
import type { Account, TargetRefusal, TargetRules, Workload } from '../../mesh/cluster.ts';
import {
  fields,
  hasApplied,
  hasLabels,
  type KubeObject,
  listOfFields,
  type ObjectRef,
  type Resource,
} from '../../objects/objects.ts';
import {
  GatewayError,
  type GatewayInput,
  type ObservedObjects,
  type PublicationInput,
  type ReferenceInput,
  type RouteDestination,
  type RouteInput,
  type RouteObjects,
  type Routes,
  type RouteVerdict,
  routeRefusal,
  slicesOf,
  workloadOf,
} from '../gateway.ts';
import { ownLabels } from '../publication.ts';
import {
  contextNameProblem,
  type EmissaryConfig,
  EMISSARY_RESOURCES as KINDS,
  MAPPING_FIELD_MANAGER,
} from './config.ts';
import { mappingSpec, parseService } from './reading.ts';

/** The objects that determine the server name of a Mapping's upstream. */
const BACKENDS: readonly Resource[] = [
  { apiVersion: 'v1', kind: 'Service', plural: 'services', namespaced: true },
  { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', plural: 'endpointslices', namespaced: true },
  { apiVersion: 'v1', kind: 'Pod', plural: 'pods', namespaced: true },
];

/** Mappings and TCPMappings: their `spec.tls` names a TLSContext. */
export const emissaryRoutes: Routes<EmissaryConfig, Target> = {
  scopes({ meta, config }) {
    const listed = config.leftIn ?? config.mappings?.namespaces ?? [meta.namespace];
    const places = listed.includes('*') ? [undefined] : listed;
    return {
      routes: [KINDS.mappings, KINDS.tcpMappings].flatMap((resource) =>
        places.map((namespace) => ({ resource, namespace })),
      ),
      own: [{ resource: KINDS.tlsContexts, namespace: meta.namespace }],
    };
  },
  concern(input, own) {
    const ours = ownNames(input, own);
    return (mapping) => isConcerned(mapping, input, ours);
  },
  behind({ rules }, { routes }) {
    const services = rules ? routes.map(serviceOf) : [];
    const namespaces = new Set(services.flatMap((name) => ('code' in name ? [] : [name.namespace])));
    return [...namespaces].flatMap((namespace) => BACKENDS.map((resource) => ({ resource, namespace })));
  },
  judge(input, observed) {
    const ours = ownNames(input, observed.own);
    const verdicts = observed.routes
      .filter((mapping) => isConcerned(mapping, input, ours))
      .map((mapping) => judgeMapping(mapping, input, observed, ours));
    return { verdicts, targets: neededTargets(input, observed.own, verdicts) };
  },
  identities: (targets) =>
    targets.flatMap(({ contextName, sni }) => (sni === undefined ? [] : [{ id: sni, object: contextName }])),
};

type MappingInput = RouteInput<EmissaryConfig>;

/** The names of contexts that are ours, whether they exist or not. */
function ownNames(input: MappingInput, contexts: readonly KubeObject[]): ReadonlySet<string> {
  const names = contexts.map(({ metadata }) => metadata.name);
  return new Set(input.config.leftIn ? names : [...names, ...promised(input).map(({ contextName }) => contextName)]);
}

/** The contexts that need no Mapping: that of the mesh, or of each listed target. */
function promised({ config: { tlsContext }, rules }: MappingInput): readonly Target[] {
  if (!rules) return [{ contextName: tlsContext.name, sni: tlsContext.sni }];
  return rules.listed.map(({ id, serviceAccount, namespace, contextName, name }) => ({
    sni: id,
    contextName:
      contextName ??
      (name === undefined
        ? contextNameOf(tlsContext.name, { serviceAccount, namespace })
        : `${tlsContext.name}-${name}`),
  }));
}

/** Whether a Mapping is selected or names one of our contexts. */
function isConcerned(mapping: KubeObject, input: MappingInput, ours: ReadonlySet<string>): boolean {
  const { tls } = mappingSpec(mapping);
  return isSelected(mapping, input) || (typeof tls === 'string' && ours.has(tls));
}

const isSelected = (mapping: KubeObject, { config: { mappings } }: MappingInput): boolean =>
  mappings !== undefined && hasLabels(mapping, mappings.selector.matchLabels);

function judgeMapping(
  mapping: KubeObject,
  input: MappingInput,
  observed: ObservedObjects,
  ours: ReadonlySet<string>,
): RouteVerdict {
  const { meta, rules } = input;
  const { service, tls } = mappingSpec(mapping);
  const uses = typeof tls === 'string' ? tls : undefined;
  const common = {
    route: mapping,
    service,
    selected: isSelected(mapping, input),
    uses,
    dependsOn: uses !== undefined && ours.has(uses) ? contextRef(input, uses) : undefined,
  };
  const target = targetOf(mapping, input, observed, ours);
  if ('code' in target) return { ...common, outcome: routeRefusal(mapping, target) };
  const { contextName, sni } = target;
  const change = { fields: { spec: { tls: contextName } }, fieldManager: MAPPING_FIELD_MANAGER };
  return {
    ...common,
    // Whoever may write a Mapping in another namespace must not choose where the agent connects to.
    upstreams: consents(mapping, meta.namespace) ? [upstreamOf(mapping, sni, rules !== undefined)] : undefined,
    outcome: {
      target: { object: contextRef(input, contextName), id: sni, change, isSet: uses === contextName },
    },
  };
}

function upstreamOf(mapping: KubeObject, sni: string | undefined, isIdentity: boolean): RouteDestination {
  const { host, port = 443 } = parseService(mappingSpec(mapping).service, mapping.metadata.namespace ?? '');
  const service = serviceOf(mapping);
  return {
    address: `${host.includes(':') ? `[${host}]` : host}:${port}`,
    sni,
    id: isIdentity ? sni : undefined,
    service: 'code' in service ? undefined : service,
  };
}

/** The context that a Mapping must name, or why its `spec.tls` is left as it is. */
function targetOf(
  mapping: KubeObject,
  input: MappingInput,
  observed: ObservedObjects,
  ours: ReadonlySet<string>,
): Target | TargetRefusal {
  const { tls } = mappingSpec(mapping);
  const isOurs = setsTls(mapping);
  const selected = isSelected(mapping, input);
  if (!selected && input.config.mappings && isOurs) {
    const message = `the agent set its spec.tls, but its labels no longer match the selector; restore the labels, or remove spec.tls`;
    return { code: 'ERR_TARGET_UNSELECTED', message };
  }
  const refusal = selected ? consentRefusal(mapping, input.meta.namespace) : undefined;
  if (refusal) return refusal;
  const seen = seenTarget(mapping, input, observed);
  const believed = 'code' in seen && UNKNOWABLE.includes(seen.code) ? promised(input) : [];
  const found = believed.find(({ contextName }) => contextName === tls) ?? seen;
  if ('code' in found) return found;
  if (typeof tls === 'string' && tls !== found.contextName && !(isOurs && ours.has(tls))) {
    const who = isOurs ? 'for another MeshCertificate' : 'by another client';
    const message = `its spec.tls names ${tls}, set ${who}; remove it, or set ${found.contextName}`;
    return { code: 'ERR_TARGET_FOREIGN_TLS', message };
  }
  return found;
}

/** Whether `spec.tls` of a Mapping was applied by us. */
export const setsTls = (mapping: KubeObject): boolean => hasApplied(mapping, MAPPING_FIELD_MANAGER, ['spec', 'tls']);

/** Why the identity of an upstream cannot be known; it is believed then that a Mapping names the right listed context. */
const UNKNOWABLE: readonly string[] = ['ERR_TARGET_NO_POD', 'ERR_TARGET_UNSEEN'];

function seenTarget(
  mapping: KubeObject,
  input: MappingInput,
  { behind, unseen }: ObservedObjects,
): Target | TargetRefusal {
  const { tlsContext } = input.config;
  const { service, ambassadorId } = mappingSpec(mapping);
  const isTcp = mapping.kind === 'TCPMapping';
  const { scheme, host, port = 443, errors } = parseService(service);
  if (errors.length > 0 && !isTcp) {
    const message = `its service ${JSON.stringify(service)} cannot be read (${errors[0]}); write https://NAME.NAMESPACE:PORT`;
    return { code: 'ERR_TARGET_SERVICE_SYNTAX', message };
  }
  const ids = ambassadorIds(ambassadorId);
  const contextIds = ambassadorIds(tlsContext.ambassadorIds);
  if (!ids.includes('_automatic_') && !ids.some((id) => contextIds.includes(id))) {
    const message = `it belongs to the gateway ${ids.join(', ')}, the context to ${contextIds.join(', ')}; give both the same ambassador_id`;
    return { code: 'ERR_TARGET_AMBASSADOR_ID', message };
  }
  // Without a scheme the gateway falls back to plaintext for a TCPMapping too; doctor warns of it.
  if (scheme !== 'https' && !isTcp) {
    const message = `its service ${service} has no https://, so the gateway would use plaintext when the TLSContext is missing; write https://${host}:${port}`;
    return { code: 'ERR_TARGET_NO_HTTPS', message };
  }
  if (!input.rules) return { contextName: tlsContext.name, sni: tlsContext.sni };
  const name = serviceOf(mapping);
  if ('code' in name) return name;
  const why = unseen.get(name.namespace);
  if (why !== undefined) {
    const message = `the pods in namespace ${name.namespace} cannot be read yet (${why}); the agent needs get, list and watch on services, endpointslices and pods there. Or list the target in the MeshCertificate, and name its context in the Mapping`;
    return { code: 'ERR_TARGET_UNSEEN', message };
  }
  const objects = { services: behind('Service'), endpointSlices: behind('EndpointSlice'), pods: behind('Pod') };
  const pods = podsBehind(name, port, objects);
  return 'code' in pods ? pods : agreedTarget(`Service ${name.namespace}/${name.name}`, pods, input, input.rules);
}

/** Absent or empty: the gateway named `default`, as Emissary reads it. */
function ambassadorIds(value: unknown): readonly string[] {
  const ids = (Array.isArray(value) ? value : [value]).filter((id): id is string => typeof id === 'string');
  return ids.length === 0 ? ['default'] : ids;
}

/** The context of the one identity that all of these pods have. */
function agreedTarget(
  title: string,
  pods: readonly Answering[],
  input: MappingInput,
  rules: TargetRules,
): Target | TargetRefusal {
  const refused: TargetRefusal[] = [];
  const byId = new Map<string, Workload>();
  for (const { workload, port } of pods) {
    const identified = rules.identify(workload, port);
    if ('code' in identified) refused.push(identified);
    else byId.set(identified.id, workload);
  }
  const [first] = refused;
  if (first && byId.size === 0) return first;
  if (first) {
    const message = `${title} has different pods: ${pods.length - refused.length} of ${pods.length} are suitable, but ${first.message}`;
    return { code: 'ERR_TARGET_DISAGREE', message };
  }
  const [one, ...others] = byId;
  if (!one || others.length > 0) {
    const list = [...byId].map(([id, { name }]) => `${id} (pod ${name})`).join(', ');
    const message = `the pods of ${title} have different identities: ${list}; give them one ServiceAccount, or create one Service for each`;
    return { code: 'ERR_TARGET_DISAGREE', message };
  }
  const [sni, account] = one;
  const listed = promised(input).find((target) => target.sni === sni);
  if (listed) return listed;
  if (rules.discover) return { contextName: contextNameOf(input.config.tlsContext.name, account), sni };
  const message = `its target is the ServiceAccount ${account.namespace}/${account.serviceAccount}, which the MeshCertificate does not list; add it to targets, or set discover: true`;
  return { code: 'ERR_TARGET_NOT_LISTED', message };
}

/**
 * The contexts that must exist: that of the mesh or of each listed or discovered target, and those of ours that a
 * Mapping still names although their target is gone.
 */
function neededTargets(
  input: MappingInput,
  contexts: readonly KubeObject[],
  verdicts: readonly RouteVerdict[],
): readonly Target[] {
  const used = new Set(verdicts.map(({ uses }) => uses));
  const needed = new Map<string, Target>();
  for (const target of [
    ...promised(input),
    ...verdicts.flatMap(({ selected, outcome }) =>
      selected && 'target' in outcome ? { contextName: outcome.target.object.name, sni: outcome.target.id } : [],
    ),
    ...contexts
      .filter(({ metadata }) => used.has(metadata.name))
      .map(({ metadata, spec }) => ({ contextName: metadata.name, sni: stringOf(fields(spec).sni) })),
  ]) {
    if (!needed.has(target.contextName)) needed.set(target.contextName, target);
  }
  return [...needed.values()].sort((a, b) => (a.contextName < b.contextName ? -1 : 1));
}

const stringOf = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

function contextRef({ meta }: Pick<GatewayInput<unknown>, 'meta'>, name: string): ObjectRef {
  const { apiVersion, kind } = KINDS.tlsContexts;
  return { apiVersion, kind, namespace: meta.namespace, name };
}

/** The TLSContexts that make Emissary speak mTLS with the identity: one for the mesh, or one for each target. */
export function desiredContexts(input: PublicationInput<EmissaryConfig, Target>): readonly KubeObject[] {
  const { meta, spec } = input;
  return contextsOf(input).map((target) => ({
    apiVersion: KINDS.tlsContexts.apiVersion,
    kind: KINDS.tlsContexts.kind,
    metadata: { name: target.contextName, namespace: meta.namespace, labels: ownLabels(meta, spec.labels) },
    spec: contextFields(input, target),
  }));
}

export function contextRefs(input: ReferenceInput<EmissaryConfig, Target>): readonly ObjectRef[] {
  return contextsOf(input).map(({ contextName }) => contextRef(input, contextName));
}

function contextsOf({ config: { tlsContext }, targets }: ReferenceInput<EmissaryConfig, Target>): readonly Target[] {
  if (!tlsContext.enabled) return [];
  return targets ?? [{ contextName: tlsContext.name, sni: tlsContext.sni }];
}

function contextFields(
  { spec, config, tls, crlSecretName }: PublicationInput<EmissaryConfig, Target>,
  { contextName, sni }: Target,
): Readonly<Record<string, unknown>> {
  const problem = contextNameProblem(contextName);
  if (problem) throw new GatewayError('ERR_GATEWAY_NAME', problem);
  const fields = config.tlsContext;
  const server = sni ?? fields.sni;
  const alpn = fields.alpnProtocols ?? tls.alpnProtocols;
  const min = fields.minTlsVersion ?? tls.minTlsVersion;
  const max = fields.maxTlsVersion ?? tls.maxTlsVersion;
  return {
    ...(fields.ambassadorIds.length > 0 ? { ambassador_id: [...fields.ambassadorIds] } : {}),
    hosts: [],
    secret: spec.secretName,
    ca_secret: spec.caSecretName,
    ...(crlSecretName === undefined ? {} : { crl_secret: crlSecretName }),
    ...(alpn === undefined ? {} : { alpn_protocols: alpn }),
    ...(server === undefined ? {} : { sni: server }),
    ...(min === undefined ? {} : { min_tls_version: min }),
    ...(max === undefined ? {} : { max_tls_version: max }),
  };
}

/** A label's length: long enough for names, short enough for every place where Emissary repeats it. */
const LONGEST_NAME = 63;
const HASH_DIGITS = 8;

/**
 * `<stem>-<account>-<namespace>`: the same for the same account, no dots, at most 63 characters. If that is ambiguous
 * or too long, a hash of both names is added.
 */
export function contextNameOf(stem: string, { serviceAccount, namespace }: Account): string {
  const plain = `${stem}-${serviceAccount}-${namespace}`.replaceAll('.', '-');
  const ambiguous = /[-.]/.test(serviceAccount) || /[-.]/.test(namespace);
  if (!ambiguous && plain.length <= LONGEST_NAME) return plain;
  const hash = createHash('sha256').update(`${namespace}/${serviceAccount}`).digest('hex').slice(0, HASH_DIGITS);
  return `${plain.slice(0, LONGEST_NAME - HASH_DIGITS - 1).replace(/(?<!-)-+$/, '')}-${hash}`;
}

/** A pod that serves a Service, and the port of the pod that does. */
interface Answering {
  readonly workload: Workload;
  readonly port: number;
}

/** The ready pods behind a port of a Service, or those that are not ready if no pod is. */
export function podsBehind(
  of: ServiceName,
  port: number,
  { services, endpointSlices, pods }: Pick<RouteObjects, 'services' | 'endpointSlices' | 'pods'>,
): readonly Answering[] | TargetRefusal {
  const title = `Service ${of.namespace}/${of.name}`;
  const service = services.find(({ metadata }) => metadata.name === of.name && metadata.namespace === of.namespace);
  if (!service) {
    const message = `${title} does not exist; create it, or correct the Mapping's service`;
    return { code: 'ERR_TARGET_NO_SERVICE', message };
  }
  const { type, externalName, clusterIP, ports } = fields(service.spec);
  if (type === 'ExternalName') {
    const message = `${title} is an alias of ${externalName}, which is outside the cluster; use the Service that has the pods`;
    return { code: 'ERR_TARGET_NOT_IN_CLUSTER', message };
  }
  const isHeadless = clusterIP === 'None';
  const servicePort = listOfFields(ports).find((candidate) => candidate.port === port);
  if (!servicePort && !isHeadless) {
    const known = listOfFields(ports).map((candidate) => candidate.port);
    const message = `${title} has no port ${port} but ${known.join(', ')}; use one of these`;
    return { code: 'ERR_TARGET_NO_PORT', message };
  }
  const inPlace = endpointSlices.filter(({ metadata }) => metadata.namespace === of.namespace);
  const answering = slicesOf(of.name, inPlace).flatMap((slice) => {
    const named = listOfFields(slice.ports).find((one) => (one.name ?? '') === (servicePort?.name ?? ''));
    const podPort = isHeadless ? port : named?.port;
    return typeof podPort === 'number'
      ? listOfFields(slice.endpoints).map((endpoint) => ({ endpoint, port: podPort }))
      : [];
  });
  if (answering.length === 0) {
    return { code: 'ERR_TARGET_NO_ENDPOINTS', message: `${title} has no endpoints on port ${port}; start its pods` };
  }
  const ready = answering.filter(({ endpoint }) => fields(endpoint.conditions).ready !== false);
  const byName = new Map(pods.map((pod) => [`${pod.metadata.namespace}/${pod.metadata.name}`, pod]));
  const found: Answering[] = [];
  for (const { endpoint, port: podPort } of ready.length > 0 ? ready : answering) {
    const ref = fields(endpoint.targetRef);
    const pod = ref.kind === 'Pod' ? byName.get(`${ref.namespace ?? of.namespace}/${ref.name}`) : undefined;
    if (!pod) {
      const what = ref.kind ? `${ref.kind} ${ref.name}, which is not a visible pod` : 'an address without a pod';
      const message = `${title} has the endpoint ${what}; its identity is unknown, so list the target in the MeshCertificate and name its context in the Mapping`;
      return { code: 'ERR_TARGET_NO_POD', message };
    }
    found.push({ workload: workloadOf(pod), port: podPort });
  }
  return found;
}

interface ServiceName {
  readonly name: string;
  readonly namespace: string;
}

/**
 * The Service that a Mapping leads to, by its host: `web`, `web.shop`, `web.shop.svc` and longer; a bare name is in the
 * Mapping's namespace.
 */
export function serviceOf(mapping: KubeObject): ServiceName | TargetRefusal {
  const { host } = parseService(mappingSpec(mapping).service);
  const { namespace: own = '' } = mapping.metadata;
  const [name = '', namespace = own, svc, ...rest] = host.replace(/\.$/, '').split('.');
  const address = host.includes(':') || /^\d+(\.\d+){3}$/.test(host);
  const elsewhere = svc !== undefined && (svc !== 'svc' || rest.length === 1);
  if (!address && !elsewhere) return { name, namespace };
  return {
    code: 'ERR_TARGET_NOT_IN_CLUSTER',
    message: `${host} is not the name of a Service, so its identity is unknown; write https://NAME.NAMESPACE:PORT`,
  };
}

/** One TLSContext that the gateway needs: `sni` is the identity of the workload behind it. */
export interface Target {
  readonly contextName: string;
  readonly sni?: string | undefined;
}

/**
 * Why a Mapping is not changed. The codes of the mesh itself (`ERR_TARGET_UNMESHED`, `…_OTHER_MESH`, `…_OPAQUE_PORT`,
 * `…_SKIPPED_PORT`, `…_PROXY_PORT`, `…_NAME`) come from its TargetRules.
 */
export const TARGET_CODES = [
  'ERR_TARGET_SERVICE_SYNTAX',
  'ERR_TARGET_NO_HTTPS',
  'ERR_TARGET_AMBASSADOR_ID',
  'ERR_TARGET_FOREIGN_TLS',
  'ERR_TARGET_NOT_IN_CLUSTER',
  'ERR_TARGET_NO_SERVICE',
  'ERR_TARGET_NO_PORT',
  'ERR_TARGET_NO_ENDPOINTS',
  'ERR_TARGET_NO_POD',
  'ERR_TARGET_DISAGREE',
  'ERR_TARGET_NOT_LISTED',
  'ERR_TARGET_UNSEEN',
  'ERR_TARGET_UNSELECTED',
  'ERR_TARGET_NO_CONSENT',
  'ERR_TARGET_UNMESHED',
  'ERR_TARGET_OTHER_MESH',
  'ERR_TARGET_OPAQUE_PORT',
  'ERR_TARGET_SKIPPED_PORT',
  'ERR_TARGET_PROXY_PORT',
  'ERR_TARGET_NAME',
] as const;
